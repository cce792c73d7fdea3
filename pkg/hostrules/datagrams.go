package hostrules

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// Datagrams are those between this host and its peers: UDP, to Port. They are of Local's
// family; Peers of another do not count.
type Datagrams struct {
	Local netip.Addr
	Port  uint16
	Peers []netip.Addr
}

// Find returns the text of a rule that concerns the datagrams, "" if there is none. The
// error is about reading the rules.
func (r *Reader) Find(d Datagrams) (rule string, err error) {
	if !d.Local.IsValid() {
		return "", nil
	}
	d.Peers = slices.DeleteFunc(slices.Clone(d.Peers), func(a netip.Addr) bool { return !a.IsValid() || inet.Of(a) != d.family() })
	if rule, err = r.findIPsec(d); rule != "" || err != nil {
		return rule, err
	}
	return r.findNetfilter(d)
}

func (d Datagrams) family() inet.Family { return inet.Of(d.Local) }

// findNetfilter returns the first rule with an effect that names our port or a peer's
// address. It also returns a rule or policy that drops all datagrams. It looks at the
// hooks that the datagrams of a socket pass, in the tables of nft and of iptables-nft. It
// ignores rules that accept: the datagrams of the kernel data path need no acceptance.
func (r *Reader) findNetfilter(d Datagrams) (string, error) {
	rules, err := r.Ruleset()
	if err != nil {
		return "", err
	}
	for _, c := range rules.Bases {
		if !passed(c, d.family()) {
			continue
		}
		s := search{Datagrams: d, Reader: r, rules: rules, seen: make(map[*Chain]bool)}
		s.outgoing = c.Hook == unix.NF_INET_LOCAL_OUT || c.Hook == unix.NF_INET_POST_ROUTING
		if c.Family == nftables.TableFamilyNetdev {
			s.outgoing = false
		}
		rule, ended := s.chain(c, route{all: true})
		switch {
		case rule != "":
			return rule, nil
		case c.Drops && !ended && !s.spared: // promise: policy-drop-is-heeded
			return fmt.Sprintf("the policy of a chain drops the datagrams (see: nft list chain %v)", c), nil
		}
	}
	return "", nil
}

// passed reports whether a base chain sees the datagrams of a socket, and does not see
// those of the kernel data path.
func passed(c *Chain, f inet.Family) bool {
	switch c.Family {
	case [...]nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}[f], nftables.TableFamilyINet:
		return c.Hook != unix.NF_INET_FORWARD
	case nftables.TableFamilyNetdev: // egress sees the datagrams of both
		return c.Hook == unix.NF_NETDEV_INGRESS
	}
	return false
}

// search is a search of the rules of one hook.
type search struct {
	Datagrams
	*Reader
	outgoing bool // the hook's datagrams go to peers; false: they come from peers
	rules    *Ruleset
	seen     map[*Chain]bool
	spared   bool // some datagrams may not reach the rules that follow
}

// hosts returns the addresses that the datagrams have as source or as destination.
func (s *search) hosts(source bool) []netip.Addr {
	if s.outgoing == source {
		return []netip.Addr{s.Local}
	}
	return s.Peers
}

// route is the way to a chain or a rule.
type route struct {
	named bool // a rule there names our port or a peer
	all   bool // all datagrams go there
}

// chain searches a chain and those that it jumps to. ended reports whether all
// datagrams are accepted there.
func (s *search) chain(c *Chain, way route) (found string, ended bool) {
	if s.seen[c] && !way.named {
		return "", false
	}
	s.seen[c] = true
	for _, rule := range c.Rules {
		m := match{search: s, route: way}
		for _, e := range rule {
			if m.add(c, e); m.never {
				break
			}
		}
		if m.never {
			continue
		}
		if m.effect != "" && m.named || m.drops && m.all && !s.spared { // promise: rule-about-datagrams-is-heeded
			return fmt.Sprintf("a rule of the firewall is for the datagrams: %s (see: nft list chain %v)", m.effect, c), false
		}
		for _, target := range s.rules.Targets(c, m.jump, m.mapped) {
			if found, ended = s.chain(target, m.route); found != "" || ended && m.jump != "" {
				return found, ended
			}
		}
		if m.leaves && m.all {
			return "", m.accepts
		}
		s.spared = s.spared || m.leaves || m.mapped || m.effect != "" && !m.drops
	}
	return "", false
}
