package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Kind is how a route leads on.
type Kind uint8

const (
	// Gateway is a next hop that the kernel must find on the link itself.
	Gateway Kind = iota
	// OnLink is a next hop whose presence on the link is taken on trust
	// (RTNH_F_ONLINK).
	OnLink
	// Link has no next hop: the destination itself is on the link.
	Link
	// Prohibit leads nowhere: senders get ICMP "administratively prohibited".
	Prohibit
)

// Route is an entry of the main routing table. Two routes are of the same
// place if Dst and Metric agree; one of them replaces the other.
type Route struct {
	Dst netip.Prefix
	// Via is the next hop; invalid for Link and Prohibit.
	Via netip.Addr
	// Dev is the interface's name; empty for Prohibit.
	Dev string
	// Metric orders routes to one destination, the lowest wins.
	Metric uint32
	Kind   Kind
}

func (r Route) String() string {
	switch r.Kind {
	case Prohibit:
		return fmt.Sprintf("prohibit %v metric %d", r.Dst, r.Metric)
	case Link:
		return fmt.Sprintf("%v dev %s", r.Dst, r.Dev)
	}
	return fmt.Sprintf("%v via %v dev %s", r.Dst, r.Via, r.Dev)
}

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Neigh is a permanent neighbour: the link-layer address of IP on Dev.
type Neigh struct {
	Dev string
	IP  netip.Addr
	MAC MAC
}

// FDB is a permanent forwarding entry of a VXLAN device: frames for MAC go to
// the host Dst.
type FDB struct {
	Dev string
	MAC MAC
	Dst netip.Addr
}

// State is a set of desired entries. Who has given one to a Keeper changes
// nothing in it any more.
type State struct {
	Routes []Route
	Neighs []Neigh
	FDB    []FDB
}

func (s State) empty() bool { return len(s.Routes)+len(s.Neighs)+len(s.FDB) == 0 }

// states are the entries of several owners, each owner's in a slice of its own.
type states struct {
	routes [][]Route
	neighs [][]Neigh
	fdb    [][]FDB
}

func (s *states) append(t State) {
	s.routes = append(s.routes, t.Routes)
	s.neighs = append(s.neighs, t.Neighs)
	s.fdb = append(s.fdb, t.FDB)
}

// Why a route is refused; test with errors.Is.
var (
	// ErrNotOnLink: no interface address puts the gateway on the link.
	ErrNotOnLink = errors.New("gateway is not on the link")
	// ErrForeign: another program's route to the destination is in the way.
	ErrForeign = errors.New("another program's route is in the way")
)

// Refusal is a route that cannot be had as things are. It is tried again when
// links, addresses or routes change, and by the slow timer.
type Refusal struct {
	Route Route
	Err   error
}

func (r *Refusal) Error() string { return fmt.Sprintf("route %v: %v", r.Route, r.Err) }
func (r *Refusal) Unwrap() error { return r.Err }
