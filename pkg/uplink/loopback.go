package uplink

import (
	"fmt"
	"net/netip"
	"slices"
)

// lendLoopback adds the addresses of lo that other hosts can reach to the
// addresses of each other interface. A host that announces its address to its
// switches, as by BGP, has the address there: packets leave with it by any
// interface, whose MTU is the one that counts.
func (h host) lendLoopback() {
	i := slices.IndexFunc(h.links, link.loopback)
	if i < 0 {
		return
	}
	for _, a := range h.links[i].addrs {
		if !a.global || a.ip.IsLoopback() {
			continue
		}
		for j := range h.links {
			if l := &h.links[j]; j != i && !l.ours() && !l.has(a.ip) {
				l.addrs = append(l.addrs, addr{ip: a.ip, lent: true})
			}
		}
	}
}

// byLoopbackAddr returns the default route's interface, with an address of lo.
func (h host) byLoopbackAddr(ip netip.Addr, r routes) (Uplink, error) {
	defaults, err := r.defaults()
	if err != nil {
		return Uplink{}, err
	}
	for _, d := range defaults {
		if l := h.byIndex(d.index); l != nil && l.up && !l.ours() && !l.loopback() {
			return l.with(ip, fmt.Sprintf("interface of the default route, with the address of -iface=%v on lo", ip)), nil
		}
	}
	return Uplink{}, notReady("-iface=%v: this is an address of lo, and no default route leads to the interface to send by; name that interface with -iface (%s)", ip, h)
}
