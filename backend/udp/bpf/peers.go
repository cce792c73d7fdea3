package bpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/coreos/flannel/pkg/inet"
)

// Peer is a subnet and the host that holds it.
type Peer struct {
	Subnet netip.Prefix
	// Addrs are the host's addresses on the underlay, by family: the sources of its
	// datagrams. One of them is valid at least.
	Addrs [2]netip.Addr
	// Outer is the family of the datagrams to the host.
	Outer inet.Family
	// Kernel is true if the host runs this path for packets of Subnet's family in
	// datagrams of Outer. Packets to other hosts are left to the TUN's reader. On virtual
	// links the sockets there would get unsegmented packets and unfinished checksums.
	Kernel bool
	// Uplinks are, by family, the indexes of the interfaces that its datagrams may arrive
	// by; the rest is 0.
	Uplinks [2][MaxUplinks]uint32
}

// MaxUplinks is the number of interfaces that a peer's datagrams of a family may arrive
// by. MaxLengths6 is the number of different prefix lengths among IPv6 subnets.
const (
	MaxUplinks  = len(flannelPeer{}.Uplinks)
	MaxLengths6 = len(flannelMasks6{}.Of)
)

func (p Peer) validate() error {
	if s := p.Subnet; !s.IsValid() || s.Addr().Is4In6() || s.Bits() < 1 || s != s.Masked() {
		return fmt.Errorf("%v is not a subnet", s)
	}
	for _, f := range inet.Families {
		if a := p.Addrs[f]; a.IsValid() && inet.Of(a) != f {
			return fmt.Errorf("%v, host of %v, is not an %v address", a, p.Subnet, f)
		}
	}
	switch {
	case p.Addrs == [2]netip.Addr{}:
		return fmt.Errorf("the host of %v has no address", p.Subnet)
	case p.Kernel && !p.Addrs[p.Outer].IsValid():
		return fmt.Errorf("the host of %v has no %v address", p.Subnet, p.Outer)
	}
	return nil
}

func (p Peer) family() inet.Family { return inet.Of(p.Subnet.Addr()) }

// endpoint is a Peer's host as in the maps. It is small, as there are tens of thousands.
type endpoint struct {
	addr              uint32
	addr6             [4]uint32
	outer             uint32
	uplinks, uplinks6 [MaxUplinks]uint32
}

func (p Peer) endpoint() endpoint {
	e := endpoint{uplinks: p.Uplinks[inet.IPv4], uplinks6: p.Uplinks[inet.IPv6]}
	if a := p.Addrs[inet.IPv4]; a.IsValid() {
		e.addr = inAddr(a)
	}
	if a := p.Addrs[inet.IPv6]; a.IsValid() {
		e.addr6 = in6Addr(a)
	}
	if p.Kernel {
		e.outer = versions[p.Outer]
	}
	return e
}

func (v flannelPeer) endpoint() endpoint {
	return endpoint{v.Addr, v.Addr6, v.Outer, v.Uplinks, v.Uplinks6}
}

// put writes the host into a value of the maps; the counters stay.
func (e endpoint) put(v *flannelPeer) {
	v.Addr, v.Addr6, v.Outer, v.Uplinks, v.Uplinks6 = e.addr, e.addr6, e.outer, e.uplinks, e.uplinks6
}

// addrs returns the host's addresses.
func (e endpoint) addrs() (all []netip.Addr) {
	if e.addr != 0 {
		all = append(all, fromInAddr(e.addr))
	}
	if e.addr6 != [4]uint32{} {
		all = append(all, fromIn6Addr(e.addr6))
	}
	return all
}

// peer is the inverse of Peer.endpoint. The family of datagrams to a host without this
// path is not known.
func (e endpoint) peer(subnet netip.Prefix) Peer {
	p := Peer{Subnet: subnet, Kernel: e.outer != 0, Uplinks: [2][MaxUplinks]uint32{e.uplinks, e.uplinks6}}
	for _, a := range e.addrs() {
		p.Addrs[inet.Of(a)] = a
	}
	if e.outer == versions[inet.IPv6] || e.addr == 0 {
		p.Outer = inet.IPv6
	}
	return p
}

// Set replaces the table. Peers that stay keep their counters.
//
// After an error of Set or Apply the path must be removed. The table may be incomplete,
// and packets of a missing peer are refused as forged.
func (p *Path) Set(peers []Peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone := maps.Clone(p.table)
	for _, peer := range peers {
		delete(gone, peer.Subnet)
	}
	return p.change(peers, slices.Collect(maps.Keys(gone)))
}

// SetIncomplete marks the table as lacking peers. The programs then leave packets
// that they would refuse as forged to the socket.
func (p *Path) SetIncomplete(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.setIncomplete(on)
}

func (p *Path) setIncomplete(on bool) error {
	if p.incomplete == on {
		return nil
	}
	p.incomplete = on
	return p.putLengths(p.lengths)
}

// Apply adds or changes some peers, and removes those of some subnets.
func (p *Path) Apply(add []Peer, remove []netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.change(add, remove)
}

// change adds peers before it removes others, so that an address that is in subnets of
// both always has a peer. If the tables have no room for both, it removes them first.
func (p *Path) change(add []Peer, remove []netip.Prefix) error {
	for _, peer := range add {
		if err := peer.validate(); err != nil {
			return fmt.Errorf("change peers of kernel path: %w", err)
		}
	}
	if p.hasRoom(add) {
		return p.put(add, remove)
	}
	before := p.incomplete
	for _, step := range []func() error{
		func() error { return p.setIncomplete(true) },
		func() error { return p.put(nil, remove) },
		func() error { return p.put(add, nil) },
		func() error { return p.setIncomplete(before) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// hasRoom reports whether the tables hold these peers beside those that they have.
func (p *Path) hasRoom(add []Peer) bool {
	lengths := p.lengths
	for _, peer := range add {
		if _, known := p.table[peer.Subnet]; !known {
			lengths[peer.family()][peer.Subnet.Bits()]++
		}
	}
	for _, f := range inet.Families {
		peers := 0
		for _, n := range lengths[f] {
			peers += n
		}
		if peers > p.config.MaxPeers[f] {
			return false
		}
	}
	return len(lengths.longestFirst(inet.IPv6)) <= MaxLengths6
}

// put writes lengths and hosts before the peers that have them, and removes them
// afterwards.
func (p *Path) put(add []Peer, remove []netip.Prefix) error {
	var added, changed []Peer
	var removed []netip.Prefix
	hosts := make(map[netip.Addr]struct{}) // whose counts change
	count := func(subnet netip.Prefix, e endpoint, by int) {
		p.count(subnet, e, by)
		for _, a := range e.addrs() {
			hosts[a] = struct{}{}
		}
	}
	for _, peer := range add {
		subnet, now := peer.Subnet, peer.endpoint()
		old, known := p.table[subnet]
		switch {
		case !known:
			added = append(added, peer)
		case old == now:
			continue
		default:
			changed = append(changed, peer)
			count(subnet, old, -1)
		}
		p.table[subnet] = now
		count(subnet, now, +1)
	}
	before := p.lengths
	for _, subnet := range remove {
		if old, known := p.table[subnet]; known {
			removed = append(removed, subnet)
			delete(p.table, subnet)
			count(subnet, old, -1)
		}
	}
	for _, step := range []func() error{
		func() error { return p.putLengths(before) },
		func() error { return p.putHosts(hosts) },
		func() error { return p.write(added, changed, removed) },
		func() error { return p.putLengths(p.lengths) },
		func() error { return p.removeHosts(hosts) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("change peers of kernel path: %w", err)
		}
	}
	return nil
}

// count changes the number of peers of a host and of a length.
func (p *Path) count(subnet netip.Prefix, e endpoint, by int) {
	p.lengths[inet.Of(subnet.Addr())][subnet.Bits()] += by
	for _, a := range e.addrs() {
		p.hosts[a] += by
		if p.hosts[a] == 0 {
			delete(p.hosts, a)
		}
	}
}

// write adds, changes and removes entries of the maps, in this order.
func (p *Path) write(added, changed []Peer, removed []netip.Prefix) error {
	for _, f := range inet.Families {
		m := p.peersOf(f)
		if err := m.add(ofFamily(added, f)); err != nil {
			return err
		}
		if err := m.rewrite(ofFamily(changed, f)); err != nil {
			return err
		}
		gone := slices.DeleteFunc(slices.Clone(removed), func(s netip.Prefix) bool { return inet.Of(s.Addr()) != f })
		if err := m.remove(gone); err != nil {
			return err
		}
	}
	return nil
}

func ofFamily(peers []Peer, f inet.Family) []Peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p.family() != f })
}

// putHosts adds the hosts that have peers.
func (p *Path) putHosts(hosts map[netip.Addr]struct{}) error {
	var keys []flannelHost
	for host := range hosts {
		if p.hosts[host] > 0 {
			keys = append(keys, flannelHost{Addr: in6Addr(host)})
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if _, err := p.Hosts.BatchUpdate(keys, make([]uint32, len(keys)), nil); err != nil {
		return fmt.Errorf("add %d hosts: %w", len(keys), err)
	}
	return nil
}

// removeHosts removes the hosts that have no peers.
func (p *Path) removeHosts(hosts map[netip.Addr]struct{}) error {
	for host := range hosts {
		if p.hosts[host] > 0 {
			continue
		}
		if err := p.Hosts.Delete(flannelHost{Addr: in6Addr(host)}); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove host %v: %w", host, err)
		}
	}
	return nil
}
