package offloadprobe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	fault "github.com/coreos/flannel/pkg/netnstest/packetfault"
)

const (
	patience = 90 * time.Second
	port     = 8287
	uplink   = "eth0"
	tunnel   = "flannel.1"
)

// side is a host with a Prober.
type side struct {
	*netnstest.Host
	subnet netip.Prefix
	addr   netip.Addr
	mtu    int
	prober *Prober
	path   pathKind

	mu      sync.Mutex
	changes []Change
}

// pathKind is a kind of path between two hosts.
type pathKind struct {
	family inet.Family
	// encapsulate: by a VXLAN, whose datagrams are of the same family.
	encapsulate bool
}

var (
	bare   = pathKind{}
	inside = pathKind{encapsulate: true}
)

// header is that of the containers' packets in a frame.
func (k pathKind) header() fault.Header {
	const ethernet, udp, vxlan = 14, 8, 8
	h := fault.Header{Offset: ethernet, IPv6: k.family == inet.IPv6}
	if k.encapsulate {
		h.Offset += int32(k.family.HeaderLen() + udp + vxlan + ethernet)
	}
	return h
}

// networks are the containers' subnets of two hosts, and their addresses on the wire.
var networks = [...]struct{ subnets, addrs [2]string }{
	inet.IPv4: {[2]string{"10.5.1.0/24", "10.5.2.0/24"}, [2]string{"192.0.2.1/24", "192.0.2.2/24"}},
	inet.IPv6: {[2]string{"fd00:5:0:1::/64", "fd00:5:0:2::/64"}, [2]string{"2001:db8::1/64", "2001:db8::2/64"}},
}

// newSides makes two hosts on one wire.
func newSides(t *testing.T, path pathKind) (a, b *side) {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	a, b = &side{Host: lab.Namespace("a")}, &side{Host: lab.Namespace("b")}
	lab.Wire(a.Host, uplink, b.Host, uplink, 0)
	for i, s := range []*side{a, b} {
		n := networks[path.family]
		outer := netip.MustParsePrefix(n.addrs[i])
		s.path, s.mtu, s.subnet, s.addr = path, 1500, netip.MustParsePrefix(n.subnets[i]), outer.Addr()
		s.AddAddr(uplink, outer)
	}
	if path.encapsulate {
		a.encapsulate(t, b.addr)
		b.encapsulate(t, a.addr)
		a.AddRoute(b.subnet, netip.Addr{}, tunnel)
		b.AddRoute(a.subnet, netip.Addr{}, tunnel)
		a.addr, b.addr = a.subnet.Addr(), b.subnet.Addr()
	}
	return a, b
}

// encapsulate makes a VXLAN to the other host.
func (s *side) encapsulate(t *testing.T, to netip.Addr) {
	t.Helper()
	parent, err := s.Netlink().LinkByName(uplink)
	if err != nil {
		t.Fatal(err)
	}
	s.mtu -= int(s.path.header().Offset) - 14
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = tunnel, s.mtu
	err = s.Netlink().LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: 1, VtepDevIndex: parent.Attrs().Index, Group: net.IP(to.AsSlice()), Port: 8472, Learning: true,
	})
	if err != nil {
		t.Fatalf("add VXLAN: %v", err)
	}
	s.AddAddr(tunnel, netip.PrefixFrom(s.subnet.Addr(), s.path.family.Bits()))
	s.Up(tunnel)
}

// start runs a Prober of the other host until the test ends.
func (s *side) start(t *testing.T, to *side, interval time.Duration) {
	t.Helper()
	s.prober = New(Config{
		Locals: []netip.AddrPort{netip.AddrPortFrom(s.addr, port)}, MTU: s.mtu, Interval: interval,
		Peers:   func() []Peer { return []Peer{{to.subnet, netip.AddrPortFrom(to.addr, port)}} },
		Changed: func(c Change) { s.mu.Lock(); defer s.mu.Unlock(); s.changes = append(s.changes, c) },
	})
	s.prober.within = s.Do
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.prober.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// peer waits until the Prober knows another host as a peer.
func (s *side) peer(t *testing.T, of *side) (p *peer) {
	t.Helper()
	until(t, "known as a peer", func() bool {
		s.prober.mu.Lock()
		defer s.prober.mu.Unlock()
		p = s.prober.peers[of.subnet]
		return p != nil
	})
	return p
}

// startBoth runs Probers that check nothing by themselves but once, and waits until both
// know the other.
func startBoth(t *testing.T, a, b *side) {
	t.Helper()
	a.start(t, b, time.Hour)
	b.start(t, a, time.Hour)
	a.eventually(t, b, "known", func(r Result) bool { return r.Known })
	b.eventually(t, a, "known", func(r Result) bool { return r.Known })
}

// eventually probes until the result of a peer is ok.
func (s *side) eventually(t *testing.T, of *side, what string, ok func(Result) bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		s.prober.Recheck(t.Context(), true)
		r := s.prober.Results()[of.subnet]
		if ok(r) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("host %s: the path to %s is not %s: %+v", s.Name(), of.Name(), what, r)
		}
	}
}

// has waits until the fault to a peer has a layer.
func (s *side) has(t *testing.T, to *side, l Layer) {
	t.Helper()
	s.eventually(t, to, "with fault "+string(l), func(r Result) bool { return r.Known && r.Tx.Layer == l })
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	netnstest.EventuallyWithin(t, patience, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}
