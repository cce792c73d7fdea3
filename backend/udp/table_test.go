package udp

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

func lease(prefix, publicIP string) subnet.Lease {
	return subnet.Lease{
		Subnet: netip.MustParsePrefix(prefix),
		Attrs:  subnet.Attrs{PublicIP: netip.MustParseAddr(publicIP)},
	}
}

func added(l subnet.Lease) subnet.Event { return subnet.Event{Type: subnet.Added, Lease: &l} }

func removed(prefix string) subnet.Event {
	return subnet.Event{Type: subnet.Removed, Lease: &subnet.Lease{Subnet: netip.MustParsePrefix(prefix)}}
}

// The table agrees with an oracle that tries every lease, longest prefix
// first, over random changes of leases of any length, on tables whose slots
// are one subnet, and on those whose slots are shared.
func TestTableOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		network := netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), rapid.SampledFrom([]int{8, 12, 16}).Draw(t, "network"))
		subnetLen := rapid.IntRange(network.Bits(), 30).Draw(t, "subnetLen")
		table := tableFor(network, subnetLen, netip.PrefixFrom(network.Addr(), 30))

		// Few enough addresses that leases meet, all inside Network.
		second := 1
		if network.Bits() == 16 {
			second = 0
		}
		addrs := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, second).Draw(t, "b")), byte(rapid.IntRange(0, 2).Draw(t, "c")), byte(rapid.IntRange(0, 255).Draw(t, "d"))})
		})
		leases := make(map[netip.Prefix]netip.Addr)
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			p := netip.PrefixFrom(addrs.Draw(t, "lease"), rapid.IntRange(max(network.Bits(), 14), 31).Draw(t, "bits")).Masked()
			if rapid.IntRange(0, 3).Draw(t, "remove") == 0 && len(leases) > 0 {
				p = rapid.SampledFrom(slices.SortedFunc(maps.Keys(leases), netip.Prefix.Compare)).Draw(t, "which")
				delete(leases, p)
				table.apply([]subnet.Event{removed(p.String())})
				continue
			}
			ip := netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(t, "ip")})
			leases[p] = ip
			table.apply([]subnet.Event{added(subnet.Lease{Subnet: p, Attrs: subnet.Attrs{PublicIP: ip}})})
		}
		if got := len(table.stats()); got != len(leases) {
			t.Fatalf("stats list %d peers, want %d", got, len(leases))
		}
		for range 50 {
			a := addrs.Draw(t, "addr")
			var want netip.Prefix
			for p := range leases {
				if p.Contains(a) && (!want.IsValid() || p.Bits() > want.Bits()) {
					want = p
				}
			}
			got := table.lookup(inet.IPv4, inet.RawOf(a))
			if got == nil != !want.IsValid() || got != nil && (got.subnet != want || got.addr.Addr() != leases[want]) {
				t.Fatalf("lookup %v gives %+v, want %v at %v", a, got, want, leases[want])
			}
		}
		for _, outside := range []string{"9.255.255.255", "11.0.0.0", "0.0.0.0", "255.255.255.255"} {
			if got := table.lookup(inet.IPv4, inet.RawOf(netip.MustParseAddr(outside))); got != nil {
				t.Fatalf("lookup %s gives %+v", outside, got)
			}
		}
	})
}

// tableFor is a table of IPv4 packets in datagrams of IPv4.
func tableFor(network netip.Prefix, subnetLen int, own netip.Prefix) *table {
	return newTable(tableConfig{
		Config: backend.Config{Network: network, SubnetLen: subnetLen},
		own:    [2]netip.Prefix{own}, outer: []inet.Family{inet.IPv4}, port: DefaultPort,
	})
}

// newPacket is a packet without options, of the addresses' family.
func newPacket(src, dst string, protocol byte, payload []byte) packet {
	if from := netip.MustParseAddr(src); from.Is6() {
		p := make([]byte, ipv6HeaderLen, ipv6HeaderLen+len(payload))
		p[0], p[6], p[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
		copy(p[8:], from.AsSlice())
		copy(p[24:], netip.MustParseAddr(dst).AsSlice())
		return append(p, payload...)
	}
	p := make([]byte, ipv4HeaderLen, ipv4HeaderLen+len(payload))
	p[0], p[8], p[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(ipv4HeaderLen+len(payload)))
	copy(p[12:], netip.MustParseAddr(src).AsSlice())
	copy(p[16:], netip.MustParseAddr(dst).AsSlice())
	return append(p, payload...)
}

func testTable() *table {
	table := tableFor(netip.MustParsePrefix("10.5.0.0/16"), 24, netip.MustParsePrefix("10.5.1.0/24"))
	table.interfacesTo = allBy(uplinkIndex)
	table.apply([]subnet.Event{
		added(lease("10.5.2.0/24", "192.0.2.2")),
		added(lease("10.5.3.0/24", "192.0.2.3")),
		added(lease("10.5.4.0/24", "192.0.2.3")),
	})
	return table
}

func TestAdmit(t *testing.T) {
	good := newPacket("10.5.2.7", "10.5.1.7", 17, []byte("payload"))
	mangled := func(f func(packet)) packet {
		p := slices.Clone(good)
		f(p)
		return p
	}
	for _, test := range []struct {
		name, outer string
		packet      packet
		want        reason
	}{
		{"good", "192.0.2.2", good, admitted},
		{"second subnet of a host", "192.0.2.3", newPacket("10.5.4.1", "10.5.1.1", 6, nil), admitted},
		{"outer source is no peer's", "192.0.2.9", good, unknownOuterSource},
		{"inner source of another peer", "192.0.2.3", good, innerSourceMismatch},
		{"inner source of nobody", "192.0.2.2", newPacket("10.5.9.1", "10.5.1.7", 17, nil), innerSourceMismatch},
		{"inner source outside Network", "192.0.2.2", newPacket("8.8.8.8", "10.5.1.7", 17, nil), innerSourceMismatch},
		{"inner source of ours", "192.0.2.2", newPacket("10.5.1.8", "10.5.1.7", 17, nil), innerSourceMismatch},
		{"inner destination of another peer", "192.0.2.2", newPacket("10.5.2.7", "10.5.3.7", 17, nil), innerDestinationMismatch},
		{"inner destination outside", "192.0.2.2", newPacket("10.5.2.7", "8.8.8.8", 17, nil), innerDestinationMismatch},
		{"empty", "192.0.2.2", nil, malformed},
		{"half a header", "192.0.2.2", good[:19], malformed},
		{"IPv6", "192.0.2.2", mangled(func(p packet) { p[0] = 0x65 }), malformed},
		{"header length 16", "192.0.2.2", mangled(func(p packet) { p[0] = 0x44 }), malformed},
		{"header longer than the packet", "192.0.2.2", mangled(func(p packet) { p[0] = 0x4f }), malformed},
		{"cut at the end", "192.0.2.2", good[:len(good)-1], malformed},
		{"bytes behind the end", "192.0.2.2", append(slices.Clone(good), 0), malformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			peer, got := testTable().admit(inet.RawOf(netip.MustParseAddr(test.outer)), uplinkIndex, test.packet)
			if got != test.want || (peer != nil) != (test.want == admitted) {
				t.Errorf("got %v (%s), want %v (%s)", got, reasonNames[got], test.want, reasonNames[test.want])
			}
		})
	}
}

// A peer that moves takes its counters along, and its old address is refused.
func TestTablePeerMoves(t *testing.T) {
	table := testTable()
	p := newPacket("10.5.2.7", "10.5.1.7", 17, nil)
	peer, _ := table.admit(inet.RawOf(netip.MustParseAddr("192.0.2.2")), uplinkIndex, p)
	peer.traffic.rx.add(1, len(p))
	table.apply([]subnet.Event{added(lease("10.5.2.0/24", "192.0.2.22"))})
	if _, why := table.admit(inet.RawOf(netip.MustParseAddr("192.0.2.2")), uplinkIndex, p); why != unknownOuterSource {
		t.Errorf("the old address: got %s", reasonNames[why])
	}
	peer, why := table.admit(inet.RawOf(netip.MustParseAddr("192.0.2.22")), uplinkIndex, p)
	if why != admitted || peer.stats().RxPackets != 1 || peer.stats().RxBytes != uint64(len(p)) {
		t.Errorf("the new address: got %s, %+v", reasonNames[why], peer)
	}
	// 192.0.2.3 holds two subnets and stays known after the loss of one.
	table.apply([]subnet.Event{removed("10.5.3.0/24"), removed("10.5.77.0/24")})
	if _, why := table.admit(inet.RawOf(netip.MustParseAddr("192.0.2.3")), uplinkIndex, newPacket("10.5.3.7", "10.5.1.7", 17, nil)); why != innerSourceMismatch {
		t.Errorf("a subnet that is gone, of a host with another: got %s", reasonNames[why])
	}
	table.apply([]subnet.Event{removed("10.5.4.0/24")})
	if _, why := table.admit(inet.RawOf(netip.MustParseAddr("192.0.2.3")), uplinkIndex, newPacket("10.5.4.7", "10.5.1.7", 17, nil)); why != unknownOuterSource {
		t.Errorf("a host without subnets: got %s", reasonNames[why])
	}
}

func FuzzAdmit(f *testing.F) {
	f.Add(uint32(0xc0000202), false, []byte(newPacket("10.5.2.7", "10.5.1.7", 17, []byte("x"))))
	table := testTable()
	errs := newFamilyErrors(netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.5.1.0/24"))
	f.Fuzz(func(t *testing.T, address uint32, v6 bool, data []byte) {
		p, outer := packet(data), inet.Raw4(address)
		if v6 {
			outer = inet.Raw{Hi: 0x20010db8 << 32, Lo: uint64(address)}
		}
		peer, why := table.admit(outer, uplinkIndex, p)
		if (peer != nil) != (why == admitted) {
			t.Fatalf("peer %v, reason %s", peer, reasonNames[why])
		}
		if peer != nil && (peer.sources[0].addr != outer && peer.sources[1].addr != outer || !peer.subnet.Contains(p.source().Addr()) || !table.config.own[p.family()].Contains(p.destination().Addr())) {
			t.Fatalf("admitted % x from %v", data, outer.Addr())
		}
		if p.wellFormed() {
			errs.noRoute(p)
		}
	})
}

func TestTableAllocations(t *testing.T) {
	table := testTable()
	p := newPacket("10.5.2.7", "10.5.1.7", 17, nil)
	outer := inet.RawOf(netip.MustParseAddr("192.0.2.2"))
	if n := testing.AllocsPerRun(1000, func() {
		table.lookup(inet.IPv4, p.source())
		if peer, _ := table.admit(outer, uplinkIndex, p); peer != nil {
			peer.traffic.rx.add(1, len(p))
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 1000, 10000} {
		b.Run(map[int]string{1: "1", 1000: "1000", 10000: "10000"}[n], func(b *testing.B) {
			table := tableFor(netip.MustParsePrefix("10.0.0.0/8"), 24, netip.MustParsePrefix("10.255.255.0/24"))
			for i := range n {
				a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})
				host := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
				table.apply([]subnet.Event{added(subnet.Lease{Subnet: netip.PrefixFrom(a, 24), Attrs: subnet.Attrs{PublicIP: host}})})
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if table.lookup(inet.IPv4, inet.Raw4(0x0a000001|uint32(i%n)<<8)) == nil {
					b.Fatal("no peer")
				}
			}
		})
	}
}

// A peer with an address inside the overlay would make a loop.
func TestApplyRefusesPeerInsideNetwork(t *testing.T) {
	n := &network{pathConfig: &pathConfig{table: testTable()}}
	n.Apply([]subnet.Event{added(lease("10.5.2.0/24", "10.5.2.1")), added(lease("10.5.9.0/24", "192.0.2.9"))})
	if p := n.table.lookup(inet.IPv4, inet.RawOf(netip.MustParseAddr("10.5.2.7"))); p != nil {
		t.Errorf("the peer is at %v", p.addr)
	}
	if n.table.lookup(inet.IPv4, inet.RawOf(netip.MustParseAddr("10.5.9.7"))) == nil {
		t.Error("the good peer beside it is not there")
	}
}
