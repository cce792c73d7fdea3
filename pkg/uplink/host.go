package uplink

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
)

// host is the state of the interfaces at one moment, as one family needs it.
type host struct {
	family inet.Family
	links  []link
}

// routes reads the kernel's routes, only if the choice needs them. A backend may
// add 10,000 routes, and after each the uplink is looked at.
type routes interface {
	// defaults returns the next hops of the default routes, lowest metric first.
	defaults() ([]hop, error)
	// to returns the next hop of a packet to ip.
	to(ip netip.Addr) (hop, error)
}

// link is one interface with its addresses.
type link struct {
	index int
	names []string // the kernel's name, then alternative names
	mtu   int
	up    bool
	// addrs are those of the host's family. IPv4 addresses are in the kernel's order:
	// primary addresses before secondary ones (net/ipv4/devinet.c,
	// __inet_insert_ifa). Of IPv6 addresses the best is first, see rankOf.
	addrs []addr
	vrf   string       // that the interface belongs to; "": none
	other []netip.Addr // of the other family
}

// addr is an address of an interface.
type addr struct {
	ip netip.Addr
	// global is RT_SCOPE_UNIVERSE (rtnetlink(7)): valid beyond the link.
	global bool
	// lent is true for an address of lo, see lendLoopback.
	lent bool
	// unfit is why the address is not to be used at present, e.g. "deprecated"; ""
	// for an address that is.
	unfit string
}

// hop is a next hop: the interface and the preferred source, if set.
type hop struct {
	index int
	src   netip.Addr
	dead  bool // it takes no packets at present
}

// byDefaultRoute chooses the interface of the first default route that is usable.
func (h host) byDefaultRoute(r routes) (Uplink, error) {
	defaults, err := r.defaults()
	if err != nil {
		return Uplink{}, err
	}
	err = h.withoutDefaultRoute()
	for i, d := range defaults {
		l := h.byIndex(d.index)
		if l == nil || l.ours() {
			continue
		}
		u, e := h.choose(*l, d.src, "interface of the default route")
		if e == nil {
			return u, nil
		}
		if i == 0 {
			err = fmt.Errorf("default route: %w", e)
		}
	}
	return Uplink{}, err
}

// withoutDefaultRoute is the error for a host without a default route. If IPv6 cannot
// work on an interface that has IPv4, that is the likely cause.
func (h host) withoutDefaultRoute() error {
	for _, l := range h.links {
		if !l.up || l.ours() || l.loopback() || len(l.other) == 0 {
			continue
		}
		if obstacle := h.obstacle(l); obstacle != nil {
			return fmt.Errorf("no %sdefault route: %w", h.qualifier(), obstacle)
		}
	}
	return notReady("no %sdefault route; name an interface with -iface (%s)", h.qualifier(), h)
}

// byNameOrAddr chooses the interface of one -iface.
func (h host) byNameOrAddr(s string, r routes) (Uplink, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return h.byAddr(ip, r)
	}
	for _, l := range h.links {
		switch {
		case !slices.Contains(l.names, s):
		case l.ours():
			return Uplink{}, fmt.Errorf("-iface=%s is a device of flannel's own", s)
		default:
			u, err := h.choose(l, netip.Addr{}, "named by -iface="+s)
			if err != nil {
				return Uplink{}, fmt.Errorf("-iface=%s: %w", s, err)
			}
			return u, nil
		}
	}
	return Uplink{}, fmt.Errorf("-iface=%s: no such interface; there are %s", s, h)
}

func (h host) byAddr(ip netip.Addr, r routes) (Uplink, error) {
	switch {
	case inet.Of(ip) != h.family:
		return h.byOtherAddr(ip)
	case ip.IsLoopback():
		return Uplink{}, fmt.Errorf("-iface=%v: a loopback address, which no other host can send to", ip)
	}
	for _, l := range h.links {
		switch {
		case !l.has(ip):
		case l.loopback():
			return h.byLoopbackAddr(ip, r)
		case l.ours():
			return Uplink{}, fmt.Errorf("-iface=%v is the address of %s, a device of flannel's own", ip, l.names[0])
		case !l.up:
			return Uplink{}, notReady("-iface=%v: interface %s is down", ip, l.names[0])
		case l.unfit(ip) != "" && l.unfit(ip) != deprecated: // the operator's choice counts
			return Uplink{}, notReady("-iface=%v: the address of %s is %s", ip, l.names[0], l.unfit(ip))
		default:
			return l.with(ip, fmt.Sprintf("has the address of -iface=%v", ip)), nil
		}
	}
	// DHCP may bring it.
	return Uplink{}, notReady("-iface=%v: no interface has this address; there are %s", ip, h)
}

// byOtherAddr chooses the interface that has ip, of the other family.
func (h host) byOtherAddr(ip netip.Addr) (Uplink, error) {
	for _, l := range h.links {
		if slices.Contains(l.other, ip) && !l.ours() {
			u, err := h.choose(l, netip.Addr{}, fmt.Sprintf("has the address of -iface=%v", ip))
			if err != nil {
				return Uplink{}, fmt.Errorf("-iface=%v: %w", ip, err)
			}
			return u, nil
		}
	}
	return Uplink{}, notReady("-iface=%v: no interface has this address; it is not an %v address", ip, h.family)
}

// byRegexp chooses the first usable interface, in the kernel's order, with a name
// or an address that expr matches. If it matches an address of the host's family,
// that is the uplink's.
func (h host) byRegexp(expr *regexp.Regexp) (Uplink, error) {
	reason := fmt.Sprintf("matches -iface-regex=%s", expr)
	err := notReady("-iface-regex=%s matches no interface; there are %s", expr, h)
	for _, l := range h.links {
		if l.ours() || l.loopback() {
			continue
		}
		if slices.ContainsFunc(l.names, expr.MatchString) {
			u, e := h.choose(l, netip.Addr{}, reason)
			if e == nil {
				return u, nil
			}
			err = fmt.Errorf("-iface-regex=%s: %w", expr, e)
			continue
		}
		for _, a := range l.addrs {
			if l.up && !a.lent && a.unfit == "" && !a.ip.IsLoopback() && expr.MatchString(a.ip.String()) {
				return l.with(a.ip, reason), nil
			}
		}
		if slices.ContainsFunc(l.other, func(ip netip.Addr) bool { return !ip.IsLoopback() && expr.MatchString(ip.String()) }) {
			u, e := h.choose(l, netip.Addr{}, reason)
			if e == nil {
				return u, nil
			}
			err = fmt.Errorf("-iface-regex=%s: %w", expr, e)
		}
	}
	return Uplink{}, err
}

func (h host) byReach(s string, r routes) (Uplink, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return Uplink{}, fmt.Errorf("-iface-can-reach=%s: not an IP address", s)
	}
	d, err := r.to(ip)
	if err != nil {
		return Uplink{}, notReady("-iface-can-reach=%s: no route: %v", s, err)
	}
	l := h.byIndex(d.index)
	switch {
	case l == nil:
		// It appeared or went between two requests to the kernel.
		return Uplink{}, notReady("-iface-can-reach=%s: interface %d is gone", s, d.index)
	case l.ours():
		return Uplink{}, fmt.Errorf("-iface-can-reach=%s is reached through %s, a device of flannel's own", s, l.names[0])
	case l.loopback():
		return Uplink{}, fmt.Errorf("-iface-can-reach=%s is this host itself", s)
	}
	u, err := h.choose(*l, d.src, "interface that reaches -iface-can-reach="+s)
	if err != nil {
		return Uplink{}, fmt.Errorf("-iface-can-reach=%s: %w", s, err)
	}
	return u, nil
}

func (h host) byIndex(index int) *link {
	for i := range h.links {
		if h.links[i].index == index {
			return &h.links[i]
		}
	}
	return nil
}

// String lists the interfaces and their addresses for an error message.
func (h host) String() string {
	var parts []string
	for _, l := range h.links {
		var ips []string
		for _, a := range l.addrs {
			switch {
			case a.lent:
			case a.unfit != "":
				ips = append(ips, a.ip.String()+" "+a.unfit)
			default:
				ips = append(ips, a.ip.String())
			}
		}
		if len(ips) == 0 {
			ips = []string{fmt.Sprintf("no %v address", h.family)}
		}
		if !l.up {
			ips = append(ips, "down")
		}
		parts = append(parts, fmt.Sprintf("%s (%s)", l.names[0], strings.Join(ips, ", ")))
	}
	return strings.Join(parts, ", ")
}

// qualifier is the family's name in messages; IPv4 goes without saying.
func (h host) qualifier() string {
	if h.family == inet.IPv4 {
		return ""
	}
	return h.family.String() + " "
}

// ours reports whether flannel made the device. It is never an uplink: packets would
// be wrapped twice.
func (l link) ours() bool { return netdev.IsFlannel(l.names[0]) }

func (l link) loopback() bool { return l.names[0] == "lo" }

func (l link) has(ip netip.Addr) bool {
	return slices.ContainsFunc(l.addrs, func(a addr) bool { return a.ip == ip })
}

// unfit is the reason why ip, one of l's addresses, is not to be used at present.
func (l link) unfit(ip netip.Addr) string {
	i := slices.IndexFunc(l.addrs, func(a addr) bool { return a.ip == ip })
	if i < 0 {
		return ""
	}
	return l.addrs[i].unfit
}

// choose chooses l's address: src if it is one of l's, else the first global one, else
// a link-local IPv4 address (RFC 3927). A link-local IPv6 address is no choice:
// every interface has one, and only -iface can mean it.
func (h host) choose(l link, src netip.Addr, reason string) (Uplink, error) {
	if !l.up {
		return Uplink{}, notReady("interface %s is down", l.names[0])
	}
	if err := h.obstacle(l); err != nil {
		return Uplink{}, err
	}
	lentReason := reason + ", with the address of lo as it has none (choose another by -iface)"
	if slices.Contains(l.addrs, addr{ip: src, lent: true}) {
		return l.with(src, lentReason), nil
	}
	if src.IsValid() && l.has(src) && l.unfit(src) == "" && !src.IsLoopback() {
		return l.with(src, reason), nil
	}
	var linkLocal, lent netip.Addr
	for _, a := range l.addrs {
		switch {
		case a.ip.IsLoopback() || a.unfit != "":
		case a.lent:
			if !lent.IsValid() {
				lent = a.ip
			}
		case a.ip.IsLinkLocalUnicast():
			if !linkLocal.IsValid() {
				linkLocal = a.ip
			}
		case a.global:
			return l.with(a.ip, reason), nil
		}
	}
	if lent.IsValid() {
		return l.with(lent, lentReason), nil
	}
	if linkLocal.IsValid() && h.family == inet.IPv4 {
		return l.with(linkLocal, reason+", which has a link-local address only"), nil
	}
	return Uplink{}, notReady("interface %s has no %v address that other hosts can reach", l.names[0], h.family)
}

func (l link) with(ip netip.Addr, reason string) Uplink {
	return Uplink{Index: l.index, Name: l.names[0], MTU: l.mtu, Addr: ip, VRF: l.vrf, Reason: reason}
}
