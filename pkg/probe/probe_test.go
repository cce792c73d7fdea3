package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/coreos/flannel/pkg/netnstest"
)

const patience = 90 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

var (
	ours   = netip.MustParsePrefix("10.5.1.0/24")
	theirs = netip.MustParsePrefix("10.5.2.0/24")
)

// start runs a Prober of theirs in h until the test ends.
func start(t *testing.T, h *netnstest.Host, mtu int) *Prober {
	t.Helper()
	p := New(Config{Subnet: ours, MTU: mtu, Interval: 100 * time.Millisecond, Peers: func() []netip.Prefix { return []netip.Prefix{theirs} }})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- h.Do(func() error { return p.Run(ctx) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return p
}

func eventually(t *testing.T, p *Prober, what string, ok func(Result) bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		r := p.Results()[theirs]
		if ok(r) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not %s: %+v", what, r)
		}
	}
}

func turned(t *testing.T, p *Prober, silent, heard []netip.Prefix) {
	t.Helper()
	if s, h := p.Turned(); !slices.Equal(s, silent) || !slices.Equal(h, heard) {
		t.Errorf("silent %v, heard %v; want %v, %v", s, h, silent, heard)
	}
}

// hosts are two with a subnet each, as host-gw joins them.
func hosts(t *testing.T) (a, b *netnstest.Host) {
	netnstest.Require(t)
	l := netnstest.New(t)
	a, b = l.Host("a"), l.Host("b")
	a.AddRoute(theirs, b.Addr().Addr(), "")
	b.AddRoute(ours, a.Addr().Addr(), "")
	return a, b
}

func host32(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 32) }

func TestAnswerSilenceAnswer(t *testing.T) {
	for _, group := range []string{"1 0", "0 2147483647"} { // a raw socket, a ping socket
		t.Run(group, func(t *testing.T) {
			a, b := hosts(t)
			a.Sysctl("net/ipv4/ping_group_range", group)
			a.AddAddr("lo", host32(ours.Addr()))
			b.AddAddr("lo", host32(theirs.Addr()))
			p := start(t, a, 1472)
			eventually(t, p, "answered", func(r Result) bool { return r.RTT > 0 && !r.Silent && r.Sent > 0 && !r.Since.IsZero() })
			eventually(t, p, "whole", func(r Result) bool { return r.MTU == 1472 })
			turned(t, p, nil, nil) // to be heard for the first time is no turn
			b.Down(netnstest.Uplink)
			eventually(t, p, "silent", func(r Result) bool { return r.Silent && r.Loss() > 0 })
			turned(t, p, []netip.Prefix{theirs}, nil)
			b.Up(netnstest.Uplink)
			b.AddRoute(ours, a.Addr().Addr(), "") // the kernel took it away with the link
			eventually(t, p, "heard again", func(r Result) bool { return !r.Silent })
			turned(t, p, nil, []netip.Prefix{theirs})
			turned(t, p, nil, nil)
		})
	}
}

// A host of host-gw has no address of its own in its subnet but its bridge's.
func TestBridgeAnswers(t *testing.T) {
	a, b := hosts(t)
	b.AddAddr("lo", host32(theirs.Addr().Next()))
	eventually(t, start(t, a, 1472), "answered", func(r Result) bool { return r.RTT > 0 && !r.Silent })
}

// The way lets less through than the devices say, and says nothing of it: a
// veth takes frames with four bytes more than its MTU, for a VLAN's header.
func TestLargestPacket(t *testing.T) {
	a, b := hosts(t)
	b.AddAddr("lo", host32(theirs.Addr()))
	a.Sysctl("net/ipv4/ping_group_range", "0 0")
	b.SetMTU(netnstest.Uplink, 1300)
	p := start(t, a, 1472)
	eventually(t, p, "found", func(r Result) bool { return r.MTU > 1300-precision && r.MTU <= 1304 })
}

// wire answers every probe and counts what leaves.
type wire struct {
	mu      sync.Mutex
	bytes   int
	packets int
	last    map[string]time.Time
	least   time.Duration // between two small probes to one address
	cut     bool          // nothing is answered
	replies chan reply
	done    chan struct{}
	once    sync.Once
}

type reply struct {
	data []byte
	from net.Addr
}

func (w *wire) WriteTo(b []byte, to net.Addr) (int, error) {
	m, err := icmp.ParseMessage(protocolICMP, b)
	if err != nil {
		return 0, err
	}
	m.Type = ipv4.ICMPTypeEchoReply
	answer, err := m.Marshal(nil)
	if err != nil {
		return 0, err
	}
	const encapsulation = 80 // WireGuard's, the largest
	w.mu.Lock()
	defer w.mu.Unlock()
	w.packets++
	w.bytes += len(b) + 20 + encapsulation
	if len(b)+20 == smallLen {
		if last, ok := w.last[to.String()]; ok {
			w.least = min(w.least, time.Since(last))
		}
		w.last[to.String()] = time.Now()
	}
	if !w.cut {
		w.replies <- reply{answer, to}
	}
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case r := <-w.replies:
		<-time.After(time.Millisecond) // of the bubble; a round trip of 0 would be none
		return copy(b, r.data), r.from, nil
	case <-w.done:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return nil }
func (w *wire) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (w *wire) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
func (w *wire) SetReadDeadline(time.Time) error {
	w.once.Do(func() { close(w.done) })
	return nil
}

// over makes a Prober of n peers at w.
func over(w *wire, n int) *Prober {
	var subnets []netip.Prefix
	for i := range n {
		subnets = append(subnets, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
	}
	w.last, w.least = make(map[string]time.Time), time.Hour
	w.replies, w.done = make(chan reply, 256), make(chan struct{})
	p := New(Config{Subnet: ours, MTU: 1420, Interval: 2 * time.Second, Peers: func() []netip.Prefix { return subnets }})
	p.open = func(netip.Addr) (conn, error) { return conn{w, false}, nil }
	return p
}

// runFor runs p in a bubble of synctest.
func runFor(t *testing.T, p *Prober, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// One large probe leaves in 2 s: for 60 peers a turn takes two minutes, and
// nobody is passed over although the first are due again after one.
func TestEachIsMeasuredInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := over(&wire{}, 60)
		runFor(t, p, 2*time.Minute+10*time.Second)
		for subnet, r := range p.Results() {
			if r.MTU != 1420 {
				t.Errorf("%v: %+v, want an MTU of 1420", subnet, r)
			}
		}
	})
}

// A link that is cut right after an answer is known to be silent after three
// probes and the time that the last one has.
func TestSilentInSevenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := over(w, 3)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- p.Run(ctx) }()
		<-time.After(time.Minute)
		sent := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.packets
		}
		for before := sent(); sent() == before; {
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(10 * time.Millisecond) // the answers have come
		w.mu.Lock()
		w.cut = true
		w.mu.Unlock()
		<-time.After(3*2*time.Second + timeout + time.Millisecond)
		if silent, _ := p.Turned(); len(silent) != 3 {
			t.Errorf("%v are silent, want all three", silent)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

// Hosts that start at the same moment neither probe the same peer first nor
// stay in step.
func TestHostsNotInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := over(w, 1000)
		p.config.Subnet = netip.MustParsePrefix("10.2.7.0/24")
		runFor(t, p, time.Second)
		for _, first := range []string{"10.2.8.0", "10.2.74.0"} {
			if _, ok := w.last[first+":0"]; !ok {
				t.Errorf("%s is not among the first %d: %v", first, len(w.last), w.last)
			}
		}
		starts := make(map[time.Duration]bool)
		for range 8 {
			w := &wire{}
			p, begin := over(w, 1), time.Now()
			runFor(t, p, 4*time.Second)
			for _, at := range w.last {
				starts[at.Sub(begin)] = true
			}
		}
		if len(starts) < 2 {
			t.Errorf("eight hosts all sent their second probe after %v, want each at a time of its own", starts)
		}
	})
}

func TestThousandPeersInTenKilobytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := over(w, 1000)
		runFor(t, p, 5*time.Minute)
		// As many answers to others leave us as probes.
		if rate := 2 * float64(w.bytes) / (5 * 60); rate >= 10_000 || rate < 5_000 {
			t.Errorf("%.0f bytes a second, want less than 10,000", rate)
		}
		if w.least < 30*time.Second {
			t.Errorf("a peer was probed after %v, want 30 s at least", w.least)
		}
		for subnet, r := range p.Results() {
			if r.Silent || r.Lost != 0 || r.Sent < 9 {
				t.Errorf("%v: %+v, want all answered", subnet, r)
			}
		}
	})
}

func TestPace(t *testing.T) {
	for _, tt := range []struct {
		interval time.Duration
		n, burst int
		pause    time.Duration
	}{
		{2 * time.Second, 0, 1, 2 * time.Second},
		{2 * time.Second, 3, 3, 2 * time.Second},
		{2 * time.Second, 66, 66, 2 * time.Second},
		{2 * time.Second, 70, 35, 1050 * time.Millisecond},
		{10 * time.Second, 4, 1, 2500 * time.Millisecond},
		{10 * time.Second, 6, 2, 10 * time.Second / 3},
		{2 * time.Second, 1000, 67, 2 * time.Second},
		{2 * time.Second, 2000, 34, 120 * time.Second / 59},
		{2 * time.Second, 10_000, 20, 2 * time.Second},
		{100 * time.Millisecond, 1, 1, 100 * time.Millisecond},
	} {
		if burst, pause := pace(tt.interval, tt.n); burst != tt.burst || pause != tt.pause {
			t.Errorf("%d peers every %v: %d at once, then %v; want %d, %v", tt.n, tt.interval, burst, pause, tt.burst, tt.pause)
		}
	}
}

func TestSearchEndsBelowTheLimit(t *testing.T) {
	now := time.Now()
	for limit := leastSize; limit <= 9000; limit += 7 {
		s, got, probes := search{full: 8972}, 0, 0
		for got == 0 && probes < 60 {
			size := s.next(now)
			s.waiting = true
			probes++
			if size <= limit {
				got = s.passed(size, now)
			} else {
				got = s.stuck(size, now)
			}
		}
		if want := min(limit, s.full); got > want || got < want-precision && limit > leastSize+precision {
			t.Fatalf("limit %d: found %d after %d probes", limit, got, probes)
		}
		if s.next(now) != 0 || s.next(now.Add(largeEvery)) != s.full {
			t.Fatalf("limit %d: want the full size again after %v, and nothing before", limit, largeEvery)
		}
	}
}
