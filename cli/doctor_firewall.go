package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
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

// firewall looks for what drops the port on its way in: in the base chains at
// the input hook, and in the chains that they jump to, a rule that drops it, or
// none that accepts it where all is dropped in the end.
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
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookInput || c.Type != nftables.ChainTypeFilter || familyName(c.Table.Family) == "" {
			continue
		}
		w := walk{ruleReader: ruleReader{conn, uint16(port)}, table: c.Table}
		end, err := w.chain(c.Name, conditions{})
		if err != nil {
			return warn("sudo flannel doctor", "rules of %s %s cannot be read: %v", c.Table.Name, c.Name, err)
		}
		if f := w.finding(c, end); f.Verdict != "" {
			return f
		}
	}
	return okay("nothing at this host's input drops UDP port %d, of the backend %s", port, backend)
}

// walk is the way of a datagram through a base chain and those that it leads to.
type walk struct {
	ruleReader
	table *nftables.Table
	// some is the first rule that drops what is not all of them; nil if none does.
	some *nftables.Rule
}

// conditions are what the rules on the way to a chain ask for; see decision.
type conditions struct{ named, narrow bool }

// fate is what becomes of a datagram: Accept, Drop, or Continue.
type fate struct {
	verdict expr.VerdictKind
	named   bool
	rule    *nftables.Rule
}

// chain is a datagram's fate in a chain. The kernel has no loops of chains.
func (w *walk) chain(name string, from conditions) (fate, error) {
	rules, err := w.conn.GetRules(w.table, &nftables.Chain{Table: w.table, Name: name})
	if err != nil {
		return fate{}, err
	}
	undecided := fate{verdict: expr.VerdictContinue}
	for _, r := range rules {
		does, err := w.decide(r)
		if err != nil {
			return fate{}, err
		}
		to := conditions{from.named || does.named, from.narrow || does.narrow}
		switch does.verdict {
		case expr.VerdictJump, expr.VerdictGoto:
			if !does.matches {
				continue
			}
			end, err := w.chain(does.chain, to)
			if err != nil || end.verdict != expr.VerdictContinue {
				return end, err
			}
			if does.verdict == expr.VerdictGoto && !does.narrow {
				return undecided, nil
			}
		case expr.VerdictReturn:
			if does.matches && !does.narrow {
				return undecided, nil
			}
		case expr.VerdictDrop, expr.VerdictAccept:
			switch {
			case !does.matches || to.narrow && !to.named: // not for ours, or who knows
			case to.narrow && does.verdict == expr.VerdictDrop:
				if w.some == nil {
					w.some = r
				}
			default:
				return fate{does.verdict, to.named, r}, nil
			}
		}
	}
	return undecided, nil
}

// finding says what a base chain does to our datagrams; nothing if no harm.
func (w *walk) finding(base *nftables.Chain, end fate) finding {
	in := func(r *nftables.Rule) string {
		return fmt.Sprintf("the chain %s of the table %s", r.Chain.Name, w.table.Name)
	}
	remove := func(r *nftables.Rule) string {
		return fmt.Sprintf("nft delete rule %s %s %s handle %d", familyName(w.table.Family), w.table.Name, r.Chain.Name, r.Handle)
	}
	accept := fmt.Sprintf("nft insert rule %s %s %s udp dport %d accept", familyName(w.table.Family), w.table.Name, base.Name, w.port)
	switch {
	case end.verdict == expr.VerdictDrop && end.named:
		return fail(remove(end.rule), "a rule in %s drops UDP port %d: no peer's packet arrives", in(end.rule), w.port)
	case end.verdict == expr.VerdictDrop:
		return fail(accept, "a rule in %s drops all, and none before it accepts UDP port %d: no peer's packet arrives", in(end.rule), w.port)
	case w.some != nil:
		return warn(remove(w.some)+", if it is for a peer", "a rule in %s drops some of what comes to UDP port %d", in(w.some), w.port)
	case end.verdict == expr.VerdictContinue && base.Policy != nil && *base.Policy == nftables.ChainPolicyDrop:
		return warn(accept, "the chain %s of the table %s drops by default, and no rule in it names UDP port %d", base.Name, w.table.Name, w.port)
	}
	return finding{}
}

// familyName is nft's; "" for those that our datagrams do not come by.
func familyName(f nftables.TableFamily) string {
	names := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet"}
	return names[f]
}
