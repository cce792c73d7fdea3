package udp

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/udpsock"
	"github.com/coreos/flannel/subnet"
)

// maxSlotBits bounds the table to 2^16 slots (512 KiB) for any ratio of Network to
// SubnetLen. Subnets of one slot are chained.
const maxSlotBits = 16

// table finds the peer that holds an address. A slot is a subnet of the
// configured length, so a look-up is an index, a load and a compare, without a
// lock. A change copies nothing. A slot has a chain only for leases of another
// length, left from an earlier configuration.
//
//	10.5.0.0/16, SubnetLen 24:   slots[3] ─► {10.5.3.0/24, peer} ─► nil
type table struct {
	base  uint32
	shift uint
	slots []atomic.Pointer[route]
	// ownNet and ownMask are our subnet: received packets must be for it.
	ownNet, ownMask uint32

	// outer has the hosts by public IP. The packet path reads it only for the reason
	// of a refusal.
	outer   map[uint32]*outerHost
	outerMu sync.RWMutex // guards outer

	// interfacesTo reads the interfaces that the host's routes to others name. nil:
	// every datagram is refused.
	interfacesTo func(hosts []netip.Addr) (map[netip.Addr][]uint32, error)

	mu    sync.Mutex // guards peers; apply writes, stats reads
	peers map[netip.Prefix]*peer
}

// peer is a host that holds a subnet. It is immutable except for its counters.
// When a lease changes, a new peer takes over the counters.
type peer struct {
	subnet netip.Prefix
	// addr is the destination of its packets, dest the same in the kernel's form.
	// outerSource is the source of packets from it.
	addr        netip.AddrPort
	dest        *udpsock.Dest
	outerSource uint32
	host        *outerHost
	traffic     *traffic
}

// traffic counts a peer's packets. Each direction has its own cache line, since
// different goroutines write them.
type traffic struct {
	tx, rx counter
}

type counter struct {
	packets, bytes atomic.Uint64
	_              [48]byte // pads to a cache line of 64 bytes
}

// add counts packets with a total of n inner bytes.
func (c *counter) add(packets, n int) {
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(n))
}

func (p *peer) stats() backend.PeerStats {
	return backend.PeerStats{
		Subnet: p.subnet, PublicIP: p.addr.Addr(),
		TxPackets: p.traffic.tx.packets.Load(), TxBytes: p.traffic.tx.bytes.Load(),
		RxPackets: p.traffic.rx.packets.Load(), RxBytes: p.traffic.rx.bytes.Load(),
	}
}

// outerHost is a host that has leases.
type outerHost struct {
	leases int
	arrivals
}

// route is one link of a slot's chain, longest prefix first. It is immutable once
// stored.
type route struct {
	net, mask uint32
	peer      *peer
	next      *route
}

func newTable(network netip.Prefix, subnetLen int, own netip.Prefix) *table {
	bits := min(subnetLen, network.Bits()+maxSlotBits)
	return &table{
		base:    be32(network.Masked().Addr()),
		shift:   uint(32 - bits),
		slots:   make([]atomic.Pointer[route], 1<<(bits-network.Bits())),
		ownNet:  be32(own.Masked().Addr()),
		ownMask: maskOf(own.Bits()),
		outer:   make(map[uint32]*outerHost),
		peers:   make(map[netip.Prefix]*peer),
	}
}

// lookup returns the peer whose subnet holds addr, or nil.
func (t *table) lookup(addr uint32) *peer {
	// An address below base wraps around to an index beyond the end.
	i := t.index(addr)
	if uint64(i) >= uint64(len(t.slots)) {
		return nil
	}
	for r := t.slots[i].Load(); r != nil; r = r.next {
		if addr&r.mask == r.net {
			return r.peer
		}
	}
	return nil
}

// admit checks a received datagram. Its payload must be one whole IPv4 packet,
// from a subnet whose lease has the datagram's source outer as public IP, to our
// own subnet, and it must have arrived by an interface that leads to the sender. It
// returns the sender, or nil and the reason of the refusal.
func (t *table) admit(outer, arrived uint32, packet ipv4Packet) (*peer, reason) {
	if !packet.wellFormed() {
		return nil, malformed
	}
	p := t.lookup(packet.source())
	switch {
	case p == nil || p.outerSource != outer: // promise: inner-source-is-the-senders
		if !t.isOuter(outer) {
			return nil, unknownOuterSource
		}
		return nil, innerSourceMismatch
	case packet.destination()&t.ownMask != t.ownNet: // promise: inner-destination-is-ours
		return nil, innerDestinationMismatch
	case !p.host.contains(arrived): // promise: arrives-by-the-route
		return nil, wrongInterface
	}
	return p, admitted
}

// apply changes the table. Packets see each change at once. port is the peers'
// port.
func (t *table) apply(events []subnet.Event, port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var hosts []netip.Addr
	for _, e := range events {
		if e.Type == subnet.Added {
			hosts = append(hosts, e.Lease.Attrs.PublicIP)
		}
	}
	interfaces := t.learn(hosts)
	for _, e := range events {
		old := t.peers[e.Subnet()]
		if e.Type == subnet.Removed {
			if old != nil {
				delete(t.peers, e.Subnet())
				t.release(old.outerSource)
				t.relink(old.subnet)
			}
			continue
		}
		public := e.Lease.Attrs.PublicIP
		p := &peer{
			subnet:      e.Subnet(),
			addr:        netip.AddrPortFrom(public, port),
			dest:        udpsock.NewDest(public.As4(), port),
			outerSource: be32(public),
			host:        t.hold(public, interfaces[public]),
			traffic:     &traffic{},
		}
		if old != nil {
			p.traffic = old.traffic
			t.release(old.outerSource)
		}
		t.peers[p.subnet] = p
		t.relink(p.subnet)
	}
}

// hold counts a lease of a host. A host without another lease gets these arrivals.
func (t *table) hold(public netip.Addr, interfaces []uint32) *outerHost {
	t.outerMu.Lock()
	defer t.outerMu.Unlock()
	h := t.outer[be32(public)]
	if h == nil {
		h = new(outerHost)
		h.set(interfaces)
		t.outer[be32(public)] = h
	}
	h.leases++
	return h
}

// release undoes one hold.
func (t *table) release(public uint32) {
	t.outerMu.Lock()
	defer t.outerMu.Unlock()
	h := t.outer[public]
	if h.leases--; h.leases == 0 {
		delete(t.outer, public)
	}
}

func (t *table) isOuter(addr uint32) bool {
	t.outerMu.RLock()
	defer t.outerMu.RUnlock()
	_, is := t.outer[addr]
	return is
}

// relink rebuilds the chains of p's slots. subnet.Manager delivers only subnets
// of Network, so each has a slot.
func (t *table) relink(p netip.Prefix) {
	first, last := t.index(be32(p.Addr())), t.index(be32(p.Addr())|^maskOf(p.Bits()))
	for i := first; i <= last; i++ {
		prefixes := []netip.Prefix{p}
		for r := t.slots[i].Load(); r != nil; r = r.next {
			if r.peer.subnet != p {
				prefixes = append(prefixes, r.peer.subnet)
			}
		}
		t.slots[i].Store(t.chain(prefixes))
	}
}

func (t *table) index(addr uint32) uint32 { return (addr - t.base) >> t.shift }

// chain links the prefixes that have peers, longest first.
func (t *table) chain(prefixes []netip.Prefix) *route {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Compare(b))
	})
	var head *route
	for _, p := range prefixes {
		if peer := t.peers[p]; peer != nil {
			head = &route{net: be32(p.Addr()), mask: maskOf(p.Bits()), peer: peer, next: head}
		}
	}
	return head
}

// stats returns all peers in order of subnet.
func (t *table) stats() []backend.PeerStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]backend.PeerStats, 0, len(t.peers))
	for _, p := range t.peers {
		all = append(all, p.stats())
	}
	slices.SortFunc(all, func(a, b backend.PeerStats) int { return a.Subnet.Compare(b.Subnet) })
	return all
}
