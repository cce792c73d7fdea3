package command

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

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
	case d.ports[backend] == 0:
		return backend, 0
	case d.port != 0:
		port = d.port
	case port == 0:
		port = d.ports[backend]
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
			does := decide(r)
			if port < does.from || port > does.to {
				continue
			}
			if does.verdict == expr.VerdictDrop {
				mend := fmt.Sprintf("nft delete rule %s %s %s handle %d", familyName(c.Table.Family), c.Table.Name, c.Name, r.Handle)
				if does.narrow {
					return warn(mend+", if it is for a peer", "a rule in the chain %s of the table %s drops some of what comes to UDP port %d", c.Name, c.Table.Name, port)
				}
				return fail(mend, "a rule in the chain %s of the table %s drops UDP port %d: no peer's packet arrives", c.Name, c.Table.Name, port)
			}
			if decided = does.verdict == expr.VerdictAccept; decided {
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

// decision is what a rule does with UDP packets to some ports.
type decision struct {
	from, to int // -1 if it compares none, or another protocol's
	verdict  expr.VerdictKind
	// narrow: it asks for more, such as an address or an interface, so that it
	// may be for some packets only.
	narrow bool
}

// decide reads a rule. Rules of iptables-nft match and reject by extensions of
// iptables.
func decide(r *nftables.Rule) decision {
	d := decision{from: -1, to: -1, verdict: expr.VerdictContinue}
	// What the register that is compared next holds.
	const other, port, protocol, family = 0, 1, 2, 3
	loaded, stranger := other, false // stranger: the rule is for another protocol than UDP
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			loaded = map[expr.MetaKey]int{expr.MetaKeyL4PROTO: protocol, expr.MetaKeyNFPROTO: family}[e.Key]
		case *expr.Payload:
			switch {
			case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
				loaded = port
			case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 9 && e.Len == 1: // RFC 791
				loaded = protocol
			default:
				loaded = other
			}
		case *expr.Cmp:
			switch {
			case loaded == port && e.Op == expr.CmpOpEq:
				d.from, d.to = portOf(e.Data), portOf(e.Data)
			case loaded == port && e.Op == expr.CmpOpGte: // a range: the register is compared twice
				d.from, d.to = portOf(e.Data), math.MaxUint16
				continue
			case loaded == port && e.Op == expr.CmpOpLte:
				d.to = portOf(e.Data)
			case loaded == protocol && e.Op == expr.CmpOpEq && len(e.Data) == 1:
				stranger = stranger || e.Data[0] != unix.IPPROTO_UDP
			case loaded != family:
				d.narrow = true
			}
			loaded = other
		case *expr.Match:
			if udp, ok := e.Info.(*xt.Udp); ok && udp.InvFlags == 0 {
				d.from, d.to = int(udp.DstPorts[0]), int(udp.DstPorts[1])
			} else {
				d.narrow = true
			}
		case *expr.Range:
			if loaded == port && e.Op == expr.CmpOpEq {
				d.from, d.to = portOf(e.FromData), portOf(e.ToData)
			} else {
				d.narrow = true
			}
		case *expr.Lookup, *expr.Limit, *expr.Connlimit:
			d.narrow = true
		case *expr.Target:
			if e.Name == "REJECT" {
				d.verdict = expr.VerdictDrop
			}
		case *expr.Verdict:
			d.verdict = e.Kind
		case *expr.Reject:
			d.verdict = expr.VerdictDrop
		}
	}
	if stranger {
		d.from, d.to = -1, -1
	}
	return d
}

// portOf reads a port as it is in a packet, -1 if it is none.
func portOf(data []byte) int {
	if len(data) != 2 {
		return -1
	}
	return int(binary.BigEndian.Uint16(data))
}

func familyName(f nftables.TableFamily) string {
	names := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv6: "ip6"}
	return names[f]
}
