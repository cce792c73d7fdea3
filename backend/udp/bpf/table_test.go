package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/inet"
)

// nthSubnet gives the n-th /24 of 10.0.0.0/8.
func nthSubnet(n int) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24|uint32(n)<<8)
	return netip.PrefixFrom(netip.AddrFrom4(b), 24)
}

func (h *host) entries() map[netip.Prefix]Peer {
	h.t.Helper()
	peers, _, err := h.path.Stats()
	h.must(err)
	m := make(map[netip.Prefix]Peer)
	for _, p := range peers {
		m[p.Subnet] = p.Peer
	}
	return m
}

// TestMany fills a table of 10,000 peers at once.
func TestMany(t *testing.T) {
	_, hosts := newHosts(t, false)
	a := hosts[0]
	a.load(a.config())
	var peers []Peer
	for i := range 10000 {
		peers = append(peers, peerAt(nthSubnet(i), nthSubnet(i+1<<15).Addr(), i%2 == 0))
	}
	start := time.Now()
	a.must(a.path.Set(peers))
	t.Logf("10,000 peers set in %v", time.Since(start))
	got := a.entries()
	for _, p := range peers {
		if got[p.Subnet] != p {
			t.Fatalf("%v is %v in the table", p, got[p.Subnet])
		}
	}
	start = time.Now()
	a.must(a.path.Apply(peers[:1], []netip.Prefix{peers[1].Subnet}))
	t.Logf("one change in %v", time.Since(start))
	if n := len(a.entries()); n != 9999 {
		t.Errorf("%d peers left, want 9999", n)
	}
	a.must(a.path.Set(nil))
	if n := len(a.entries()); n != 0 {
		t.Errorf("%d peers left, want none", n)
	}
	var host flannelHost
	var value uint32
	if a.path.Hosts.Iterate().Next(&host, &value) {
		t.Errorf("host %v left", fromIn6Addr(host.Addr))
	}
}

// A full table takes new peers in the places of others, and the last length of IPv6 subnets.
func TestFullTable(t *testing.T) {
	_, hosts := newHosts(t, false)
	a := hosts[0]
	c := a.config()
	c.MaxPeers[inet.IPv4] = 8
	a.load(c)
	set := func(f func() error, want ...Peer) {
		t.Helper()
		a.must(f())
		got := a.entries()
		for _, p := range want {
			if got[p.Subnet] != p {
				t.Errorf("%v is %v in the table", p, got[p.Subnet])
			}
		}
		if len(got) != len(want) || a.path.incomplete {
			t.Errorf("the table has %d peers, want %d; incomplete: %v", len(got), len(want), a.path.incomplete)
		}
	}
	var some, others, of6 []Peer
	for i := range 8 {
		some = append(some, peerAt(nthSubnet(i), nthSubnet(i+1<<15).Addr(), true))
		others = append(others, peerAt(nthSubnet(i+8), nthSubnet(i+1<<15).Addr(), true))
	}
	for i := range MaxLengths6 + 1 {
		of6 = append(of6, peerAt(netip.PrefixFrom(netip.MustParseAddr("fd00:5::"), 40+i), nthSubnet(1<<15).Addr(), true))
	}
	set(func() error { return a.path.Set(some) }, some...)
	set(func() error { return a.path.Apply(others[:1], []netip.Prefix{some[7].Subnet}) }, append(slices.Clone(some[:7]), others[0])...)
	set(func() error { return a.path.Set(others) }, others...)
	set(func() error { return a.path.Set(of6[1:]) }, of6[1:]...)
	set(func() error { return a.path.Apply(of6[:1], []netip.Prefix{of6[1].Subnet}) }, append(slices.Clone(of6[2:]), of6[0])...)
}

// TestTooMany must not pass for done.
func TestTooMany(t *testing.T) {
	_, hosts := newHosts(t, false)
	a := hosts[0]
	c := a.config()
	c.MaxPeers[inet.IPv4] = 8
	a.load(c)
	var peers []Peer
	for i := range 9 {
		peers = append(peers, peerAt(nthSubnet(i), nthSubnet(i+1<<15).Addr(), false))
	}
	if err := a.path.Set(peers); err == nil {
		t.Error("9 peers fit a table of 8")
	}
}

// TestChange changes the table under traffic.
func TestChange(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	ping := func() { t.Helper(); run(t, a.Host, "ping", "-c", "1", "-w", "5", b.inner().String()) }
	good := peerAt(b.subnet, b.local(), true)
	ping()

	// Leases of other lengths, inside and around b's: the longest prefix matches.
	wide := peerAt(netip.MustParsePrefix("10.5.0.0/18"), a.local(), true)
	narrow := peerAt(netip.PrefixFrom(b.inner(), 31).Masked(), b.local(), true)
	a.must(a.path.Apply(a.reached(wide, narrow), nil))
	ping()
	if s := a.statsOf(narrow.Subnet); s.TxPackets != 1 || s.RxPackets != 1 {
		t.Errorf("counted for %v: %+v", narrow.Subnet, s)
	}
	b.AddAddr(deviceName, netip.PrefixFrom(b.inner().Next(), 32)) // outside of narrow
	run(t, a.Host, "ping", "-c", "1", "-w", "5", b.inner().Next().String())
	if s := a.statsOf(b.subnet); s.TxPackets != 2 || s.RxPackets != 2 {
		t.Errorf("counted for %v: %+v", b.subnet, s)
	}
	a.must(a.path.Apply(nil, []netip.Prefix{wide.Subnet, narrow.Subnet}))

	// The host loses the path and gets it again; the counters continue.
	a.must(a.path.Apply(a.reached(peerAt(b.subnet, b.local(), false)), nil))
	ping()
	if n := a.sent.Load(); n != 1 {
		t.Errorf("user space sent %d packets, want 1", n)
	}
	a.must(a.path.Apply(a.reached(good), nil))
	ping()
	// The answer to the packet from user space came through the kernel.
	if s := a.statsOf(b.subnet); s.TxPackets != 3 || s.RxPackets != 4 {
		t.Errorf("counted for %v: %+v", b.subnet, s)
	}

	// After a host's move only its new address is accepted.
	a.must(a.path.Apply(a.reached(peerAt(b.subnet, netip.MustParseAddr("192.168.77.99"), true)), nil))
	run(t, b.Host, "sh", "-c", "! ping -c 1 -W 0.2 "+a.inner().String())
	a.refuses(1, "unknown_outer_source")
	a.set(good)
	ping()

	// Without a lease no address is accepted.
	a.must(a.path.Apply(nil, []netip.Prefix{b.subnet}))
	before := a.sent.Load()
	run(t, a.Host, "sh", "-c", "! ping -c 1 -W 0.2 "+b.inner().String())
	if n := a.sent.Load() - before; n != 1 {
		t.Errorf("user space got %d packets for nobody, want 1", n)
	}
}

func TestBadConfig(t *testing.T) {
	local, local6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	good := Config{
		Device: 1, Port: port, MTU: 1472, MaxPeers: [2]int{1, 1},
		Locals: [2]netip.Addr{local, local6}, Subnets: [2]netip.Prefix{nthSubnet(1), netip.MustParsePrefix("fd00::/64")},
	}
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"device":      func(c *Config) { c.Device = 0 },
		"port":        func(c *Config) { c.Port = 0 },
		"no local":    func(c *Config) { c.Locals = [2]netip.Addr{} },
		"IPv4 local":  func(c *Config) { c.Locals[inet.IPv4] = local6 },
		"IPv6 local":  func(c *Config) { c.Locals[inet.IPv6] = local },
		"no subnet":   func(c *Config) { c.Subnets = [2]netip.Prefix{} },
		"subnet":      func(c *Config) { c.Subnets[inet.IPv4] = netip.PrefixFrom(netip.MustParseAddr("10.5.0.1"), 24) },
		"IPv4 subnet": func(c *Config) { c.Subnets[inet.IPv4] = c.Subnets[inet.IPv6] },
		"IPv6 subnet": func(c *Config) { c.Subnets[inet.IPv6] = nthSubnet(1) },
		"MTU":         func(c *Config) { c.MTU = 0 },
		"peers":       func(c *Config) { c.MaxPeers[inet.IPv4] = 0 },
		"IPv6 peers":  func(c *Config) { c.MaxPeers[inet.IPv6] = 0 },
	} {
		c := good
		change(&c)
		if p, err := Load(c); err == nil {
			t.Errorf("%s: loaded", name)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	p := newPath(good)
	for name, bad := range map[string]Peer{
		"no host":      {Subnet: nthSubnet(1)},
		"wrong family": {Subnet: nthSubnet(1), Addrs: [2]netip.Addr{local6}},
		"no address":   {Subnet: nthSubnet(1), Addrs: [2]netip.Addr{local}, Outer: inet.IPv6, Kernel: true},
		"host bits":    peerAt(netip.PrefixFrom(nthSubnet(1).Addr().Next(), 24), local, true),
		"all subnets":  peerAt(netip.PrefixFrom(netip.IPv4Unspecified(), 0), local, true),
		"mapped":       peerAt(netip.MustParsePrefix("::ffff:10.5.0.0/112"), local, true),
	} {
		if err := p.Apply([]Peer{bad}, nil); err == nil {
			t.Errorf("%s: added", name)
		}
	}
}
