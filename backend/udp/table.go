package udp

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/udpsock"
	"github.com/coreos/flannel/subnet"
)

// table finds the peer that holds an address. The packet path reads it without a lock.
type table struct {
	config tableConfig
	// slots are by family; nil: no packets of the family.
	slots [2]*slots
	// own are our subnets: received packets must be for one.
	own [2]rawPrefix

	// outer has the hosts by address. The packet path reads it only for the reason
	// of a refusal.
	outer   map[inet.Raw]*outerHost
	outerMu sync.RWMutex // guards outer

	// interfacesTo reads the interfaces that the host's routes to others name. nil:
	// every datagram is refused.
	interfacesTo func(hosts []netip.Addr) (map[netip.Addr][]uint32, error)

	mu     sync.Mutex // guards what follows; apply writes, stats reads
	peers  map[netip.Prefix]*peer
	faulty map[netip.Prefix]backend.PeerStats // leases without a peer
}

// tableConfig is what a table is made from.
type tableConfig struct {
	backend.Config
	own   [2]netip.Prefix // by family
	outer []inet.Family   // of our datagrams
	port  uint16          // of all hosts
}

// networks are those of the families inside.
func (c tableConfig) networks() (all []netip.Prefix) {
	for _, f := range c.Inside() {
		all = append(all, c.Of(f).Network)
	}
	return all
}

// rawPrefix is a network in the packet path's form.
type rawPrefix struct{ net, mask inet.Raw }

func rawOf(p netip.Prefix) rawPrefix {
	return rawPrefix{inet.RawOf(p.Masked().Addr()), inet.MaskOf(p)}
}

func (p *rawPrefix) contains(a inet.Raw) bool { return a.And(p.mask) == p.net }

// peer is a host that holds a subnet. It is immutable except for its counters.
// When a lease changes, a new peer takes over the counters.
type peer struct {
	subnet netip.Prefix
	outer  inet.Family // of the datagrams to it
	// addr is the destination of its packets, dest the same in the kernel's form.
	addr netip.AddrPort
	dest *udpsock.Dest
	// sources are the host's addresses, by any of which its datagrams may come. One
	// address stands here twice.
	sources [2]source
	traffic *traffic
}

// sourceAt returns the source with that address, or another one if there is none; nil
// of no peer.
func (p *peer) sourceAt(a inet.Raw) *source {
	switch {
	case p == nil:
		return nil
	case p.sources[0].addr == a:
		return &p.sources[0]
	}
	return &p.sources[1]
}

// source is an address of a host.
type source struct {
	addr inet.Raw
	host *outerHost
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

// outerHost is an address of a host that has leases.
type outerHost struct {
	leases int
	arrivals
}

func newTable(c tableConfig) *table {
	t := &table{
		config: c,
		outer:  make(map[inet.Raw]*outerHost),
		peers:  make(map[netip.Prefix]*peer),
		faulty: make(map[netip.Prefix]backend.PeerStats),
	}
	for _, f := range c.Inside() {
		t.slots[f] = newSlots(c.Of(f).Network, c.Of(f).SubnetLen)
		t.own[f] = rawOf(c.own[f])
	}
	return t
}

// lookup returns the peer whose subnet holds an address of a family, or nil.
func (t *table) lookup(f inet.Family, a inet.Raw) *peer { return t.slots[f].lookup(a) }

// admit checks a received datagram. Its payload must be one whole IP packet,
// from a subnet whose lease names the datagram's source outer, to our
// own subnet, and it must have arrived by an interface that leads to the sender. It
// returns the sender, or nil and the reason of the refusal.
func (t *table) admit(outer inet.Raw, arrived uint32, p packet) (*peer, reason) {
	if !p.wellFormed() {
		return nil, malformed
	}
	f := p.family()
	from := t.lookup(f, p.source())
	s := from.sourceAt(outer)
	switch {
	case from == nil || s.addr != outer: // promise: inner-source-is-the-senders
		return nil, t.mismatch(outer)
	case !t.own[f].contains(p.destination()): // promise: inner-destination-is-ours
		return nil, innerDestinationMismatch
	case !s.host.contains(arrived): // promise: arrives-by-the-route
		return nil, wrongInterface
	}
	return from, admitted
}

// mismatch returns the reason for which a datagram from outer is refused.
func (t *table) mismatch(outer inet.Raw) reason {
	t.outerMu.RLock()
	defer t.outerMu.RUnlock()
	if _, known := t.outer[outer]; known {
		return innerSourceMismatch
	}
	return unknownOuterSource
}

// apply changes the table. Packets see each change at once.
func (t *table) apply(events []subnet.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	interfaces := t.learn(t.addressesOf(events))
	for _, e := range events {
		if t.slots[e.Family] == nil {
			continue
		}
		dst := e.Subnet()
		old := t.peers[dst]
		delete(t.faulty, dst)
		var p *peer
		if e.Type == subnet.Added {
			p = t.newPeer(e, interfaces)
		}
		switch {
		case p != nil:
			if old != nil {
				p.traffic = old.traffic
			}
			t.peers[dst] = p
		case old != nil:
			delete(t.peers, dst)
		default:
			continue
		}
		if old != nil {
			t.release(old)
		}
		t.slots[e.Family].relink(dst, t.peers)
	}
}

// addressesOf returns the addresses of the hosts that events add.
func (t *table) addressesOf(events []subnet.Event) (hosts []netip.Addr) {
	for _, e := range events {
		if e.Type == subnet.Added {
			hosts = append(hosts, t.sourcesOf(e.Lease)...)
		}
	}
	return hosts
}

// sourcesOf returns a host's addresses in the families of our datagrams.
func (t *table) sourcesOf(l *subnet.Lease) (all []netip.Addr) {
	for _, f := range t.config.outer {
		if a := l.Attrs.Addr(f); a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// newPeer returns the peer of an added lease's part; nil if no packets can be
// exchanged, which the statistics show.
func (t *table) newPeer(e subnet.Event, interfaces map[netip.Addr][]uint32) *peer {
	outer, err := backend.ChooseOuter(e.Family, t.config.outer, e.Lease.Attrs)
	if err == nil {
		err = t.checkLoop(e.Lease.Attrs.Addr(outer))
	}
	if err != nil {
		ratelog.Errorf("skip peer subnet=%v reason=%q", e.Subnet(), err)
		t.faulty[e.Subnet()] = backend.PeerStats{Subnet: e.Subnet(), PublicIP: e.Lease.Attrs.Addr(e.Family), Problem: err.Error()}
		return nil
	}
	addr := netip.AddrPortFrom(e.Lease.Attrs.Addr(outer), t.config.port)
	p := &peer{subnet: e.Subnet(), outer: outer, addr: addr, dest: udpsock.NewDest(addr), traffic: &traffic{}}
	all := t.sourcesOf(e.Lease)
	for i := range p.sources {
		a := all[min(i, len(all)-1)]
		p.sources[i] = source{inet.RawOf(a), t.hold(a, interfaces[a])}
	}
	return p
}

// checkLoop returns an error if a host's address lies in the overlay: its datagrams
// would be routed into the tunnel, and wrapped again.
func (t *table) checkLoop(host netip.Addr) error {
	for _, f := range t.config.Inside() {
		if n := t.config.Of(f).Network; n.Contains(host) {
			return fmt.Errorf("its address %v lies in Network %v", host, n)
		}
	}
	return nil
}

// hold counts a use of a host's address. An address without another use gets these
// arrivals.
func (t *table) hold(a netip.Addr, interfaces []uint32) *outerHost {
	t.outerMu.Lock()
	defer t.outerMu.Unlock()
	key := inet.RawOf(a)
	h := t.outer[key]
	if h == nil {
		h = new(outerHost)
		h.set(interfaces)
		t.outer[key] = h
	}
	h.leases++
	return h
}

// release undoes the holds of a peer.
func (t *table) release(p *peer) {
	t.outerMu.Lock()
	defer t.outerMu.Unlock()
	for _, s := range p.sources {
		if s.host.leases--; s.host.leases == 0 {
			delete(t.outer, s.addr)
		}
	}
}

// peerOf returns the peer that holds a subnet, or nil.
func (t *table) peerOf(s netip.Prefix) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[s]
}

// stats returns all peers in order of subnet.
func (t *table) stats() []backend.PeerStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]backend.PeerStats, 0, len(t.peers)+len(t.faulty))
	for _, p := range t.peers {
		all = append(all, p.stats())
	}
	for _, p := range t.faulty {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b backend.PeerStats) int { return a.Subnet.Compare(b.Subnet) })
	return all
}
