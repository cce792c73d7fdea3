// Package backend is the contract between the control plane, which decides who
// owns which subnet, and the data plane, which carries packets to it.
//
//	subnet.Manager ──[]subnet.Event──► Network.Apply ──► route table or kernel state
//
// Nothing else passes between the two. Each folder below is one backend; none
// imports another, and none knows how leases are stored.
package backend

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// MinMTU is the smallest MTU, in bytes, of a link that carries IPv4 (RFC 791
// section 3.2).
const MinMTU = 68

// Config is what a backend is made from.
type Config struct {
	// Network is the overlay's whole address range; SubnetLen the prefix length
	// that hosts' subnets are cut to. Leases of another length may exist, left
	// from an earlier configuration.
	Network   netip.Prefix
	SubnetLen int
	// Options is the network configuration's Backend object, nil if absent.
	Options json.RawMessage
	// Uplink is the interface that encapsulated packets leave by.
	Uplink uplink.Uplink
	// PublicIP is the address that other hosts send to; it differs from
	// Uplink.Addr behind a 1:1 NAT.
	PublicIP netip.Addr
	// Port, if not 0, takes precedence over the port in Options.
	Port int
	// DataPath is the -udp-datapath flag.
	DataPath string
	// StateDir is a folder for what must outlive a reboot, RunDir one for what
	// must not; both may have to be made.
	StateDir, RunDir string
	// Reconciled, if not nil, is told how long it took each time to compare the
	// kernel's devices and routes with what they should be, and to mend them.
	Reconciled func(time.Duration)
}

// Backend makes one kind of network. Its constructor checks the configuration
// and touches nothing.
type Backend interface {
	// Attrs is what the lease shall tell the other hosts.
	Attrs() subnet.Attrs
	// Up makes devices, addresses and routes for the lease, and what it made is
	// gone again if it returns an error. No packet moves before Run.
	Up(ctx context.Context, l subnet.Lease) (Network, error)
}

// ErrGone is Network.Run's: somebody deleted the device that packets went by.
var ErrGone = errors.New("the device was deleted")

// Network carries packets between our subnet and those of the peers.
type Network interface {
	// MTU is the largest packet, in bytes, that containers may send.
	MTU() int
	// Apply changes the set of peers. One caller at a time (subnet.Manager.Watch);
	// it may run beside Run and Stats. It does not block on the network.
	Apply([]subnet.Event)
	// Run moves packets until ctx ends (nil) or something it cannot mend breaks
	// (the error). Every goroutine that it started has ended when it returns.
	// ErrGone: a new network will do.
	Run(ctx context.Context) error
	// Stats is a snapshot for status and metrics; safe at any time before Close.
	// Its cost grows with the number of peers.
	Stats() Stats
	Checker
	// DataPath is that of Stats, at a cost that does not grow. It takes the locks
	// that Apply takes, so that whoever asks learns of one that hangs.
	DataPath() string
	// Close releases what the process holds. It is called once, after Run has
	// returned, or without Run. What the kernel carries packets with by itself
	// (devices, routes) stays, so that the next run takes it over and no packet
	// is lost in between; what cannot work without us goes.
	io.Closer
}

// Checker finds out whether packets can be exchanged with the peers, as far as
// this host has a hand in it.
type Checker interface {
	// Check compares device, routes, and the data path's own table of peers with
	// what they should be, and changes nothing. The error says what differs, in
	// one line or several; most of it is mended in a moment. It asks the kernel
	// and does not wait for the network: milliseconds for a thousand peers. It
	// is safe at any time before Close.
	Check() error
}

// Announcer is a Network whose lease comes to tell other things while it runs.
type Announcer interface {
	// Announce is called once, before Run and the first Apply. The Network calls
	// publish, from any goroutine, whenever what the lease must tell from now on
	// has changed; publish does not wait for the store (subnet.Manager.Publish).
	Announce(publish func(subnet.Attrs))
}

// Rekeyer is a Network with a key that can be replaced while it runs.
type Rekeyer interface {
	// Rekey makes a new key, puts it to use and returns what the lease must tell
	// from now on (subnet.Manager.Publish). Packets in flight are not lost.
	Rekey() (subnet.Attrs, error)
}

// Stats counts packets since the start. Bytes are those of the inner packets.
type Stats struct {
	// DataPath names what moves the packets, and Reason why it was chosen.
	DataPath, Reason string
	Peers            []PeerStats
	// Drops counts refused packets by reason. Each reason that can occur is
	// present from the start, so that a zero is a measured zero.
	Drops map[string]uint64
}

// PeerStats counts the packets exchanged with one peer.
type PeerStats struct {
	Subnet             netip.Prefix
	PublicIP           netip.Addr
	TxPackets, TxBytes uint64
	RxPackets, RxBytes uint64
	// Uncounted: nobody counts them. The kernel does not, for a route or a
	// forwarding entry, and WireGuard counts bytes on the wire, handshakes
	// included.
	Uncounted bool
	// Problem says why packets cannot be exchanged with this peer, as far as
	// is known; empty: nothing is.
	Problem string
}
