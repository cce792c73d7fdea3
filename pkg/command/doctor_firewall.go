package command

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// defaultPorts are those that other hosts send to, by backend.
var defaultPorts = map[string]int{"udp": 8285, "vxlan": 8472, "wireguard": 51820}

// listens is the backend and its UDP port, 0 if it has none.
func (d *doctor) listens() (backend string, port int) {
	backend = "udp"
	if d.config != nil {
		backend = d.config.BackendType
		var given struct{ Port, ListenPort int }
		// One that does not parse is for the check of etcd to say.
		if err := json.Unmarshal(d.config.Backend, &given); err == nil {
			port = max(given.Port, given.ListenPort)
		}
	} else if d.report != nil && d.report.Backend != nil {
		backend = d.report.Backend.Type
	}
	switch {
	case defaultPorts[backend] == 0:
		return backend, 0
	case d.port != 0:
		port = d.port
	case port == 0:
		port = defaultPorts[backend]
	}
	return backend, port
}

// firewall looks for what drops the port on its way in: a base chain at the
// input hook that drops by default, or a rule that names the port and drops.
func (d *doctor) firewall(context.Context) finding {
	backend, port := d.listens()
	if port == 0 {
		return finding{} // nothing that has a port
	}
	conn, err := nftables.New()
	if err != nil {
		return warn("sudo flannel doctor", "nftables cannot be read: %v", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return warn("sudo flannel doctor", "the rules cannot be read: %v", err)
	}
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookInput || c.Type != nftables.ChainTypeFilter {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return warn("sudo flannel doctor", "rules of %s %s cannot be read: %v", c.Table.Name, c.Name, err)
		}
		decided := false
		for _, r := range rules {
			from, to, verdict := portsAndVerdict(r)
			if port < from || port > to {
				continue
			}
			if verdict == expr.VerdictDrop {
				return fail(fmt.Sprintf("nft delete rule %s %s %s handle %d", familyName(c.Table.Family), c.Table.Name, c.Name, r.Handle),
					"a rule in the chain %s of the table %s drops UDP port %d: no peer's packet arrives", c.Name, c.Table.Name, port)
			}
			if decided = verdict == expr.VerdictAccept; decided {
				break
			}
		}
		if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop && !decided {
			return warn(fmt.Sprintf("nft insert rule %s %s %s udp dport %d accept", familyName(c.Table.Family), c.Table.Name, c.Name, port),
				"the chain %s of the table %s drops by default, and no rule in it names UDP port %d", c.Name, c.Table.Name, port)
		}
	}
	return okay("nothing at this host's input drops UDP port %d, of the backend %s", port, backend)
}

// portsAndVerdict reads a rule's destination ports of UDP, -1 if it compares
// none, and what it does with a packet. Rules of iptables-nft match and reject by
// extensions of iptables.
func portsAndVerdict(r *nftables.Rule) (from, to int, verdict expr.VerdictKind) {
	from, to, verdict = -1, -1, expr.VerdictContinue
	loaded, protocol := false, false // a register holds the destination port, the protocol
	other := false                   // the rule is for another protocol than UDP
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			protocol = e.Key == expr.MetaKeyL4PROTO
		case *expr.Payload:
			loaded = e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2
		case *expr.Cmp:
			if loaded && e.Op == expr.CmpOpEq && len(e.Data) == 2 {
				from = int(e.Data[0])<<8 | int(e.Data[1])
				to = from
			}
			if protocol && e.Op == expr.CmpOpEq && len(e.Data) == 1 && e.Data[0] != unix.IPPROTO_UDP {
				other = true
			}
			loaded, protocol = false, false
		case *expr.Match:
			if udp, ok := e.Info.(*xt.Udp); ok && udp.InvFlags == 0 {
				from, to = int(udp.DstPorts[0]), int(udp.DstPorts[1])
			}
		case *expr.Target:
			if e.Name == "REJECT" {
				verdict = expr.VerdictDrop
			}
		case *expr.Verdict:
			verdict = e.Kind
		case *expr.Reject:
			verdict = expr.VerdictDrop
		}
	}
	if other {
		return -1, -1, verdict
	}
	return from, to, verdict
}

func familyName(f nftables.TableFamily) string {
	names := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv6: "ip6"}
	return names[f]
}
