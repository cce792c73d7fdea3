package offloadprobe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
	fault "github.com/coreos/flannel/pkg/netnstest/packetfault"
)

const (
	patience = 90 * time.Second
	port     = 8287
	uplink   = "eth0"
	tunnel   = "flannel.1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// side is a host with a Prober.
type side struct {
	*netnstest.Host
	subnet netip.Prefix
	addr   netip.Addr
	mtu    int
	prober *Prober

	mu      sync.Mutex
	changes []Change
}

// newSides makes two hosts on one wire. With encapsulation they have a VXLAN.
func newSides(t *testing.T, encapsulate bool) (a, b *side) {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	a = &side{Host: lab.Namespace("a"), subnet: netip.MustParsePrefix("10.5.1.0/24"), mtu: 1500}
	b = &side{Host: lab.Namespace("b"), subnet: netip.MustParsePrefix("10.5.2.0/24"), mtu: 1500}
	lab.Wire(a.Host, uplink, b.Host, uplink, 0)
	outer := netip.MustParsePrefix("192.0.2.1/24")
	for _, s := range []*side{a, b} {
		s.AddAddr(uplink, outer)
		s.addr, outer = outer.Addr(), netip.PrefixFrom(outer.Addr().Next(), 24)
	}
	if encapsulate {
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
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = tunnel, s.mtu-50
	err = s.Netlink().LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: 1, VtepDevIndex: parent.Attrs().Index, Group: net.IP(to.AsSlice()), Port: 8472, Learning: true,
	})
	if err != nil {
		t.Fatalf("add VXLAN: %v", err)
	}
	s.mtu -= 50
	s.AddAddr(tunnel, netip.PrefixFrom(s.subnet.Addr(), 32))
	s.Up(tunnel)
}

// start runs a Prober of the other host until the test ends.
func (s *side) start(t *testing.T, to *side, interval time.Duration) {
	t.Helper()
	s.prober = New(Config{
		Local: netip.AddrPortFrom(s.addr, port), MTU: s.mtu, Interval: interval,
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

// Offsets of the containers' IP header in a frame, and of their data behind the TCP
// header.
const (
	plainIP = 14
	vxlanIP = 14 + 20 + 8 + 8 + 14
	dataOff = 20 + 32 + headerLen + 10
)

// faults are the faults that tests plant in the direction from a to b.
var faults = []struct {
	name        string
	encapsulate bool
	device      string
	parts       func() []fault.Part
	want        Layer
}{
	{"checksum", true, uplink, func() []fault.Part { return parts(fault.ChecksumLeft(vxlanIP), fault.Drop()) }, Checksum},
	{"checksum without encapsulation", false, uplink, func() []fault.Part { return parts(fault.ChecksumLeft(plainIP), fault.Drop()) }, Checksum},
	{"checksum of large packets", true, uplink, func() []fault.Part { return parts(fault.LongerThan(1000), fault.ChecksumLeft(vxlanIP), fault.Drop()) }, Checksum},
	{"super-packets", true, uplink, func() []fault.Part { return parts(fault.SuperPacket(), fault.Drop()) }, Segmentation},
	{"super-packets without encapsulation", false, uplink, func() []fault.Part { return parts(fault.SuperPacket(), fault.Drop()) }, Segmentation},
	{"frames above the MTU", true, uplink, func() []fault.Part { return parts(fault.LongerThan(1514), fault.Drop()) }, Segmentation},
	{"super-packets of TCP", true, uplink, func() []fault.Part {
		return parts(fault.SuperPacket(), fault.Protocol(vxlanIP, unix.IPPROTO_TCP), fault.Drop())
	}, TCPSegmentation},
	{"super-packets of UDP", true, uplink, func() []fault.Part {
		return parts(fault.SuperPacket(), fault.Protocol(vxlanIP, unix.IPPROTO_UDP), fault.Drop())
	}, UDPSegmentation},
	{"damage in super-packets of TCP", true, uplink, func() []fault.Part {
		return parts(fault.SuperPacket(), fault.Protocol(vxlanIP, unix.IPPROTO_TCP), fault.Damage(vxlanIP+dataOff))
	}, TCPSegmentation},
	{"large packets", true, uplink, func() []fault.Part { return parts(fault.LongerThan(1400), fault.Drop()) }, PathMTU},
	{"large packets without encapsulation", false, uplink, func() []fault.Part { return parts(fault.LongerThan(1400), fault.Drop()) }, PathMTU},
	{"ECN dropped", true, uplink, func() []fault.Part { return parts(fault.ECNCapable(vxlanIP), fault.Drop()) }, ECN},
	{"ECN cleared", false, uplink, func() []fault.Part { return parts(fault.ECNCapable(plainIP), fault.ClearECN(plainIP)) }, ECN},
}

func parts(p ...fault.Part) []fault.Part { return p }

// Each fault is found and named by the host that sends, and by nobody in the other
// direction. It ends when its cause is gone.
func TestFaults(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			a, b := newSides(t, f.encapsulate)
			startBoth(t, a, b)
			remove := fault.Plant(t, b.Host, f.device, f.parts()...)
			a.has(t, b, f.want)
			b.eventually(t, a, "without fault, and told of the other direction", func(r Result) bool {
				return r.Tx.Layer == "" && r.Rx.Layer == f.want
			})
			remove()
			a.has(t, b, "")
		})
	}
}

// Packets that the receiver merges are told from those that the sender segments: with
// frames of the MTU on the wire, the first are lost behind the merging.
func TestReceiveMerging(t *testing.T) {
	a, b := newSides(t, true)
	for _, feature := range []string{"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-tcp-segmentation"} {
		if out, err := a.Command(t.Context(), "ethtool", "-K", uplink, feature, "off").CombinedOutput(); err != nil {
			t.Fatalf("ethtool: %v\n%s", err, out)
		}
	}
	startBoth(t, a, b)
	fault.Plant(t, b.Host, tunnel, fault.SuperPacket(), fault.Drop())
	a.has(t, b, ReceiveMerging)
}

// A path that loses packets has no fault.
func TestLossIsNoFault(t *testing.T) {
	a, b := newSides(t, true)
	fault.Plant(t, a.Host, uplink, fault.Randomly(10), fault.Drop())
	fault.Plant(t, b.Host, uplink, fault.Randomly(10), fault.Drop())
	a.noFault(t, b)
}

// A path that delays, reorders, duplicates or damages packets has no fault.
func TestNetemIsNoFault(t *testing.T) {
	for name, netem := range map[string]string{
		"reorder":   "delay 10ms reorder 25% 50%",
		"duplicate": "duplicate 20%",
		"delay":     "delay 40ms 20ms",
		"damage":    "corrupt 5%",
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newSides(t, true)
			for _, s := range []*side{a, b} {
				args := append([]string{"qdisc", "add", "dev", uplink, "root", "netem"}, strings.Fields(netem)...)
				out, err := s.Command(t.Context(), "tc", args...).CombinedOutput()
				if strings.Contains(string(out), "qdisc kind is unknown") {
					netnstest.Netem.Missing(t, string(out))
					return
				}
				if err != nil {
					t.Fatalf("tc %v: %v\n%s", args, err, out)
				}
			}
			a.noFault(t, b)
		})
	}
}

// noFault checks and diagnoses the path several times.
func (s *side) noFault(t *testing.T, to *side) {
	t.Helper()
	startBoth(t, s, to)
	known := s.peer(t, to)
	for range 2 {
		s.prober.Recheck(t.Context(), true)
		if l, _ := diagnose(t.Context(), func(shape shape) outcome { return s.prober.probe(t.Context(), known, shape) }); l != "" {
			t.Errorf("a diagnosis finds %s", l)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.changes) != 0 {
		t.Errorf("faults on a path without one: %+v", s.changes)
	}
}

// The schedule finds a fault without a call of Recheck, and reports each change once.
func TestSchedule(t *testing.T) {
	a, b := newSides(t, true)
	a.start(t, b, time.Second)
	b.start(t, a, time.Second)
	result := func(s, of *side) Result { return s.prober.Results()[of.subnet] }
	until(t, "healthy", func() bool { return result(a, b).Known && result(b, a).Known })
	remove := fault.Plant(t, b.Host, uplink, fault.SuperPacket(), fault.Drop())
	until(t, "found", func() bool { return result(a, b).Tx.Layer == Segmentation && result(b, a).Rx.Layer == Segmentation })
	remove()
	until(t, "gone", func() bool { return result(a, b).Tx.Layer == "" && result(b, a).Rx.Layer == "" })
	until(t, "reported", func() bool { // after the result
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.changes) >= 2
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.changes) != 2 || a.changes[0] != (Change{b.subnet, false, "", Segmentation}) || a.changes[1] != (Change{b.subnet, false, Segmentation, ""}) {
		t.Errorf("changes %+v", a.changes)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not %s", what)
		}
	}
}

// A peer without a responder, and one that is away, have no fault and no result.
func TestSilentPeer(t *testing.T) {
	a, b := newSides(t, true)
	a.start(t, b, time.Hour)
	a.peer(t, b)
	a.prober.Recheck(t.Context(), true)
	b.Down(tunnel)
	a.prober.Recheck(t.Context(), true)
	if r := a.prober.Results()[b.subnet]; r != (Result{}) {
		t.Errorf("%+v", r)
	}
}

// A peer that starts later is diagnosed at once: its silence was no diagnosis.
func TestFaultOfALatePeer(t *testing.T) {
	a, b := newSides(t, true)
	fault.Plant(t, b.Host, uplink, fault.SuperPacket(), fault.Drop())
	a.start(t, b, time.Minute)
	to := a.peer(t, b)
	examine := func() {
		to.visiting.Lock()
		defer to.visiting.Unlock()
		a.prober.examine(t.Context(), to, udpCheck)
	}
	examine()
	b.start(t, a, time.Hour)
	until(t, "found", func() bool {
		examine()
		return a.prober.Results()[b.subnet].Tx.Layer == Segmentation
	})
}

// A socket that cannot be read ends Run.
func TestBrokenSocket(t *testing.T) {
	a, _ := newSides(t, false)
	p := New(Config{Local: netip.AddrPortFrom(a.addr, port), Interval: time.Hour, Peers: func() []Peer { return nil }})
	var r *responder
	err := a.Do(func() (err error) {
		r, err = openResponder(t.Context(), p.config.Local, p.faultOf)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.plain.conn.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.runWith(ctx, r); !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("the error is %v; ctx: %v", err, ctx.Err())
	}
}

// The responder answers the addresses of peers only, and whole probes only.
func TestStrangersGetNoAnswer(t *testing.T) {
	a, b := newSides(t, false)
	startBoth(t, a, b)
	stranger := netip.MustParsePrefix("192.0.2.9/24")
	b.AddAddr(uplink, stranger)
	whole := header{kind: kindProbe, token: 7}.message(smallLen)
	damaged := header{kind: kindProbe, token: 7}.message(smallLen)
	damaged[smallLen-1]++
	for _, tt := range []struct {
		name    string
		from    netip.Addr
		message []byte
		answer  bool
	}{{"peer", b.addr, whole, true}, {"stranger", stranger.Addr(), whole, false}, {"damaged", b.addr, damaged, false},
		{"receipt", b.addr, header{kind: kindReceipt, token: 7}.message(smallLen), false}, {"short", b.addr, whole[:headerLen-1], false}} {
		c, err := b.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(tt.from, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.addr, port))
		// The answer to the second message is after that to the first.
		second := header{kind: kindProbe, token: 8}.message(smallLen)
		for _, m := range [][]byte{tt.message, second} {
			if _, err := c.WriteTo(m, to); err != nil {
				t.Fatal(err)
			}
		}
		var h header
		buffer := make([]byte, 100)
		limit := patience
		if tt.from != b.addr {
			limit = time.Second // nothing comes
		}
		if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFrom(buffer)
		if err == nil {
			err = h.parse(buffer[:n])
		}
		if answered := err == nil && h.token == 7; answered != tt.answer {
			t.Errorf("%s: answered %t (%v), want %t", tt.name, answered, err, tt.answer)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The responder closes a stranger's connection without an answer.
func TestStrangersConnection(t *testing.T) {
	a, b := newSides(t, false)
	startBoth(t, a, b)
	stranger := netip.MustParsePrefix("192.0.2.9/24")
	b.AddAddr(uplink, stranger)
	for from, want := range map[netip.Addr]bool{b.addr: true, stranger.Addr(): false} {
		var c net.Conn
		err := b.Do(func() (err error) {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
			c, err = d.DialContext(t.Context(), "tcp4", netip.AddrPortFrom(a.addr, port).String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(connectionLimit / 2)); err != nil {
			t.Fatal(err)
		}
		_, err = c.Write(header{kind: kindProbe, shape: tcpSmall, token: 7, length: smallLen}.message(smallLen))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, headerLen))
		}
		if answered := err == nil; answered != want || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("from %v: answered %t (%v), want %t", from, answered, err, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The checks of a peer cost what the budget assumes.
func TestCostOfChecks(t *testing.T) {
	a, b := newSides(t, true)
	startBoth(t, a, b)
	sent := func() int {
		link, err := a.Netlink().LinkByName(uplink)
		if err != nil {
			t.Fatal(err)
		}
		return int(link.Attrs().Statistics.TxBytes)
	}
	least := 1 << 30
	for range 5 { // neighbour discovery may come between
		before := sent()
		a.prober.Recheck(t.Context(), true)
		b.prober.Recheck(t.Context(), true)
		least = min(least, sent()-before)
	}
	if budget := a.mtu + tcpOverhead + udpCost; least > budget || least < budget/2 {
		t.Errorf("%d bytes for the checks of a peer and the receipts, want at most %d", least, budget)
	}
}
