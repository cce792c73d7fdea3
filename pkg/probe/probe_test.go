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

// wire answers every probe at once and counts what leaves.
type wire struct {
	mu      sync.Mutex
	bytes   int
	packets int
	last    map[string]time.Time
	least   time.Duration // between two small probes to one address
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
	w.replies <- reply{answer, to}
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case r := <-w.replies:
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

func TestThousandPeersInTenKilobytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var subnets []netip.Prefix
		for i := range 1000 {
			subnets = append(subnets, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
		}
		w := &wire{last: make(map[string]time.Time), least: time.Hour, replies: make(chan reply, 256), done: make(chan struct{})}
		p := New(Config{Subnet: ours, MTU: 1420, Interval: 2 * time.Second, Peers: func() []netip.Prefix { return subnets }})
		p.open = func(netip.Addr) (conn, error) { return conn{w, false}, nil }
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
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
		{2 * time.Second, 4, 4, 2 * time.Second},
		{2 * time.Second, 20, 20, 2 * time.Second},
		{10 * time.Second, 4, 1, 2500 * time.Millisecond},
		{2 * time.Second, 1000, 66, 1980 * time.Millisecond},
		{2 * time.Second, 2000, 33, 1980 * time.Millisecond},
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
