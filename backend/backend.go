// Package backend is the contract between the control plane, which decides which
// host owns which subnet, and the data plane, which carries packets.
//
//	subnet.Manager ──[]subnet.Event──► Network.Apply ──► route table or kernel state
//
// Only events pass between the two. Each folder below is one backend. A backend
// imports no other backend, and no store.
package backend

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// MinMTU is the smallest MTU, in bytes, of a link that carries IPv4 (RFC 791
// section 3.2).
const MinMTU = 68

// Config is the input of a backend's constructor. The constructor does not change it.
type Config struct {
	// Network is the overlay's IPv4 range, invalid if the network carries no IPv4.
	// SubnetLen is the prefix length of new subnets; leases from an earlier
	// configuration may have another length. IPv6Network and IPv6SubnetLen are those
	// of IPv6. One of both ranges is valid at least.
	Network       netip.Prefix
	SubnetLen     int
	IPv6Network   netip.Prefix
	IPv6SubnetLen int
	// Options is the network configuration's Backend object, nil if absent.
	Options json.RawMessage
	// Uplink is the interface to the other hosts for packets with outer IPv4 headers,
	// zero if there is none. PublicIP is the address that other hosts send to. It
	// differs from Uplink.Addr behind a 1:1 NAT. IPv6Uplink and PublicIPv6 are those
	// of IPv6. One of both uplinks is not zero at least. They may be two interfaces.
	Uplink     uplink.Uplink
	PublicIP   netip.Addr
	IPv6Uplink uplink.Uplink
	PublicIPv6 netip.Addr
	// Port, if not 0, takes precedence over the port in Options.
	Port int
	// DataPath is the -udp-datapath flag.
	DataPath string
	// FastPath is the -fastpath flag: FastPathAuto or FastPathOff.
	FastPath string
	// FastPathMark is the -fastpath-mark flag: the two bits of conntrack marks that
	// the fast path uses.
	FastPathMark uint32
	// StateDir is a folder for state that outlives a reboot, RunDir for state that
	// does not. A backend makes them if they do not exist.
	StateDir, RunDir string
	// Previous are the attributes of this host's lease in the store; zero if they are
	// not known. A backend that can stay as the other hosts know it should do so.
	Previous subnet.Attrs
	// Reconciled, if not nil, is called after each comparison and repair of the
	// kernel's devices and routes, with its duration. It must not block.
	Reconciled func(time.Duration)
}

// Side is the part of a Config that one family has.
type Side struct {
	Network   netip.Prefix
	SubnetLen int
	Uplink    uplink.Uplink
	PublicIP  netip.Addr
}

// Of returns the part of a family.
func (c Config) Of(f inet.Family) Side {
	if f == inet.IPv4 {
		return Side{c.Network, c.SubnetLen, c.Uplink, c.PublicIP}
	}
	return Side{c.IPv6Network, c.IPv6SubnetLen, c.IPv6Uplink, c.PublicIPv6}
}

// Set sets the part of a family.
func (c *Config) Set(f inet.Family, s Side) {
	if f == inet.IPv4 {
		c.Network, c.SubnetLen, c.Uplink, c.PublicIP = s.Network, s.SubnetLen, s.Uplink, s.PublicIP
	} else {
		c.IPv6Network, c.IPv6SubnetLen, c.IPv6Uplink, c.PublicIPv6 = s.Network, s.SubnetLen, s.Uplink, s.PublicIP
	}
}

// Inside reports whether the network carries packets of the family.
func (s Side) Inside() bool { return s.Network.IsValid() }

// Outside reports whether packets to other hosts can have outer headers of the
// family.
func (s Side) Outside() bool { return s.Uplink.Addr.IsValid() }

// Backend makes one kind of network. Its constructor checks the configuration,
// and changes nothing on the host. One goroutine calls the methods.
type Backend interface {
	// Attrs returns the attributes that the lease must have.
	Attrs() subnet.Attrs
	// Up makes devices, addresses and routes for the lease, and removes them if it
	// returns an error. The caller owns the Network and closes it. The Network
	// carries no packets before Run.
	Up(ctx context.Context, l subnet.Lease) (Network, error)
}

// ErrGone is an error of Network.Run: the device was deleted. The caller may call
// Up again.
var ErrGone = errors.New("the device was deleted")

// Network carries packets between this host's subnet and those of the peers. All
// methods but Run, Apply and Close may be called concurrently, until Close.
type Network interface {
	// MTU returns the largest packet, in bytes, that containers may send. It is
	// constant.
	MTU() int
	// Apply changes the set of peers. It has one caller at a time
	// (subnet.Manager.Watch), and may run beside all methods but Close. It does not
	// wait for the network, and does not keep the slice.
	Apply([]subnet.Event)
	// Run carries packets until ctx ends, and then returns nil. It is called once at
	// most. Errors: a failure that it cannot repair; ErrGone. When it returns, all
	// goroutines that it started have ended.
	Run(ctx context.Context) error
	// Stats returns a snapshot that the caller owns. Its cost grows with the number
	// of peers.
	Stats() Stats
	Checker
	// DataPath returns Stats.DataPath at a constant cost. It takes the locks of
	// Apply, so that a caller with a time limit detects a deadlock.
	DataPath() string
	// Encapsulation returns that of DataPath, at a constant cost.
	Encapsulation() Encapsulation
	// Close releases the resources of the process. It is called once, after Run has
	// returned or without Run, and after all other methods. Kernel state that
	// carries packets without the process (devices, routes) stays, and the next run
	// adopts it without packet loss. Other kernel state is removed.
	io.Closer
}

// Checker checks this host's part of the paths to the peers.
type Checker interface {
	// Check compares device, routes, and the data path's own table of peers with
	// the desired state, and changes nothing. The error has a line for each
	// difference; Run repairs most of them within a second. Check reads from the
	// kernel and does not wait for the network: it takes milliseconds for a thousand
	// peers.
	Check() error
}

// Announcer is a Network that changes its lease's attributes while it runs.
type Announcer interface {
	// Announce is called once, before Run and the first Apply. The Network calls
	// publish, from any goroutine, with the new attributes after each change.
	// publish does not wait for the store (subnet.Manager.Publish).
	Announce(publish func(subnet.Attrs))
}

// Rekeyer is a Network with a key that can be replaced while it runs.
type Rekeyer interface {
	// Rekey makes a new key, uses it, and returns the new attributes of the lease,
	// which the caller publishes (subnet.Manager.Publish). Packets in flight are not
	// lost. It may be called concurrently with all methods but Close.
	Rekey() (subnet.Attrs, error)
}

// Stats counts packets since the start. Bytes are those of the inner packets.
type Stats struct {
	// DataPath is the name of the data path; Reason is why it was chosen.
	DataPath, Reason string
	Peers            []PeerStats
	// Drops counts refused packets by reason. Each reason that can occur is
	// present from the start with 0.
	Drops map[string]uint64
	// FastPath is nil if the backend has none.
	FastPath *FastPath
}

// These are the values of -fastpath. Auto uses the fast path where it can be.
const (
	FastPathAuto = "auto"
	FastPathOff  = "off"
)

// FastPath counts packets between containers and the tunnel device or the uplink that
// pass bridge, firewall rules and routing by.
type FastPath struct {
	// Containers is the number of addresses that it serves.
	Containers           int
	TxPackets, RxPackets uint64
	// LongWay counts the packets that did not take it, by reason.
	LongWay map[string]uint64
	// Off are the reasons why it does not serve some or all containers.
	Off []string
	// Cut says which devices of the long way cut super-packets, and why.
	Cut []string
}

// PeerStats counts the packets exchanged with one peer.
type PeerStats struct {
	Subnet             netip.Prefix
	PublicIP           netip.Addr
	TxPackets, TxBytes uint64
	RxPackets, RxBytes uint64
	// TxFast is the number of TxPackets that took the fast path.
	TxFast uint64
	// Uncounted is true if the counters are not available. The kernel has none for
	// a route or a forwarding entry; WireGuard's include the bytes of its own
	// headers and handshakes.
	Uncounted bool
	// Problem is the known reason why no packets can be exchanged with this peer;
	// empty: none.
	Problem string
}

// UncountedPeers returns the statistics of peers whose packets the kernel does not
// count, sorted by subnet. describe returns a peer's PublicIP, and its problem or
// nil.
func UncountedPeers[P any](peers map[netip.Prefix]P, describe func(netip.Prefix, P) (publicIP netip.Addr, problem error)) []PeerStats {
	all := make([]PeerStats, 0, len(peers))
	for _, dst := range slices.SortedFunc(maps.Keys(peers), netip.Prefix.Compare) {
		publicIP, problem := describe(dst, peers[dst])
		stats := PeerStats{Subnet: dst, PublicIP: publicIP, Uncounted: true}
		if problem != nil {
			stats.Problem = problem.Error()
		}
		all = append(all, stats)
	}
	return all
}
