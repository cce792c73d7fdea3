package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Kind is the way of a route to its destination.
type Kind uint8

const (
	// Gateway has a next hop that an address of the interface puts on the link.
	Gateway Kind = iota
	// OnLink has a next hop that the kernel does not check (RTNH_F_ONLINK).
	OnLink
	// Link has no next hop: the destination itself is on the link.
	Link
	// Prohibit has no link: senders get ICMP "administratively prohibited".
	Prohibit
	// Blackhole has no link: the kernel drops packets without an answer.
	Blackhole
)

// Route is an entry of the main routing table. A route replaces another one with
// the same Dst and Metric.
type Route struct {
	Dst netip.Prefix
	// Via is the next hop; invalid for Link, Prohibit and Blackhole.
	Via netip.Addr
	// Dev is the interface's name; empty for Prohibit and Blackhole.
	Dev string
	// Metric orders routes to one destination: the lowest wins. With 0 the kernel
	// gives an IPv6 route the metric 1024.
	Metric uint32
	Kind   Kind
}

func (r Route) String() string {
	switch r.Kind {
	case Prohibit:
		return fmt.Sprintf("prohibit %v metric %d", r.Dst, r.Metric)
	case Blackhole:
		return fmt.Sprintf("blackhole %v metric %d", r.Dst, r.Metric)
	case Link:
		return fmt.Sprintf("%v dev %s", r.Dst, r.Dev)
	}
	return fmt.Sprintf("%v via %v dev %s", r.Dst, r.Via, r.Dev)
}

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Neigh is a permanent entry of Config.Device: a neighbour, or a forwarding entry.
type Neigh struct {
	// IP is the neighbour, or the host that a forwarding entry leads to.
	IP netip.Addr
	// MAC is the neighbour's link-layer address, or the one behind that host.
	MAC MAC
	// FDB is true for a forwarding entry of a VXLAN device.
	FDB bool
}

func (n Neigh) String() string {
	if n.FDB {
		return fmt.Sprintf("forwarding entry %v dst %v", n.MAC, n.IP)
	}
	return fmt.Sprintf("neighbour %v lladdr %v", n.IP, n.MAC)
}

// State is a set of desired entries. A caller that has passed one to a Reconciler
// must not change it.
type State struct {
	Routes []Route
	Neighs []Neigh
}

// The reasons of refusals, for errors.Is.
var (
	// ErrNotOnLink: no interface address puts the gateway on the link.
	ErrNotOnLink = errors.New("gateway is not on the link")
	// ErrForeign: another program has a route to the destination.
	ErrForeign = errors.New("another program's route is in the way")
)

// Refusal is a route that the kernel does not take at present. Run tries it again
// after changes of links, addresses or routes, and every few minutes.
type Refusal struct {
	Route Route
	Err   error
}

func (r *Refusal) Error() string { return fmt.Sprintf("route %v: %v", r.Route, r.Err) }
func (r *Refusal) Unwrap() error { return r.Err }
