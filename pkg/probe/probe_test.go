package probe

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
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
func start(t *testing.T, h *netnstest.Host, mtu int, changed ...func(netip.Prefix, bool)) *Prober {
	t.Helper()
	p := New(Config{Subnet: ours, MTU: mtu, Interval: 100 * time.Millisecond, Peers: func() []netip.Prefix { return []netip.Prefix{theirs} }})
	for _, f := range changed {
		p.config.Changed = f
	}
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

// changes collects the calls of Config.Changed.
type changes struct {
	mu             sync.Mutex
	silent, answer []netip.Prefix
}

func (c *changes) add(peer netip.Prefix, silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if silent {
		c.silent = append(c.silent, peer)
	} else {
		c.answer = append(c.answer, peer)
	}
}

// take returns the peers that fell silent, and those that answer again, since the
// last call.
func (c *changes) take() (silent, answer []netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	silent, answer = c.silent, c.answer
	c.silent, c.answer = nil, nil
	return silent, answer
}

func (c *changes) expect(t *testing.T, silent, answer []netip.Prefix) {
	t.Helper()
	if s, a := c.take(); !slices.Equal(s, silent) || !slices.Equal(a, answer) {
		t.Errorf("silent %v, answering %v; want %v, %v", s, a, silent, answer)
	}
}

// hosts returns two hosts with a subnet each, connected as by host-gw.
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
			var c changes
			p := start(t, a, 1472, c.add)
			eventually(t, p, "answered", func(r Result) bool { return r.RTT > 0 && !r.Silent && r.Sent > 0 && !r.Since.IsZero() })
			eventually(t, p, "whole", func(r Result) bool { return r.MTU == 1472 })
			c.expect(t, nil, nil) // a first answer is no change
			b.Down(netnstest.Uplink)
			eventually(t, p, "silent", func(r Result) bool { return r.Silent && r.Loss() > 0 })
			c.expect(t, []netip.Prefix{theirs}, nil)
			b.Up(netnstest.Uplink)
			b.AddRoute(ours, a.Addr().Addr(), "") // the kernel removed it with the link
			eventually(t, p, "heard again", func(r Result) bool { return !r.Silent })
			c.expect(t, nil, []netip.Prefix{theirs})
			c.expect(t, nil, nil)
		})
	}
}

// With host-gw a host's only address in its subnet is its bridge's.
func TestBridgeAnswers(t *testing.T) {
	a, b := hosts(t)
	b.AddAddr("lo", host32(theirs.Addr().Next()))
	eventually(t, start(t, a, 1472), "answered", func(r Result) bool { return r.RTT > 0 && !r.Silent })
}

// The path's MTU is smaller than the devices', without an ICMP error. A veth accepts
// frames with four bytes more than its MTU, for a VLAN tag.
func TestLargestPacket(t *testing.T) {
	a, b := hosts(t)
	b.AddAddr("lo", host32(theirs.Addr()))
	a.Sysctl("net/ipv4/ping_group_range", "0 0")
	b.SetMTU(netnstest.Uplink, 1300)
	p := start(t, a, 1472)
	eventually(t, p, "found", func(r Result) bool { return r.MTU > 1300-precision && r.MTU <= 1304 })
}

// wire answers every probe after a millisecond and counts what leaves.
type wire struct {
	mu      sync.Mutex
	bytes   int
	packets int
	last    map[netip.Addr]time.Time
	least   time.Duration // between two small probes to one address
	cut     bool          // no probe is answered
	looks   int           // calls of receive that found no answer
	delay   time.Duration // of answers, beyond a round trip
	replies []datagram
}

const roundTrip = time.Millisecond

func (w *wire) send(b []byte, to netip.Addr) error {
	m, err := icmp.ParseMessage(unix.IPPROTO_ICMP, b)
	if err != nil {
		return err
	}
	m.Type = ipv4.ICMPTypeEchoReply
	answer, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	const encapsulation = 80 // WireGuard's, the largest
	w.mu.Lock()
	defer w.mu.Unlock()
	w.packets++
	w.bytes += len(b) + 20 + encapsulation
	if len(b)+20 == SmallSize(inet.IPv4) {
		if last, ok := w.last[to]; ok {
			w.least = min(w.least, time.Since(last))
		}
		w.last[to] = time.Now()
	}
	if !w.cut {
		w.replies = append(w.replies, datagram{answer, to, time.Now().Add(roundTrip + w.delay)})
	}
	return nil
}

func (w *wire) receive() (datagram, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.replies) == 0 || time.Now().Before(w.replies[0].at) {
		w.looks++
		return datagram{}, unix.EAGAIN
	}
	l := w.replies[0]
	w.replies = w.replies[1:]
	return l, nil
}

func (w *wire) Close() error { return nil }

// over returns a Prober of n peers at w.
func over(w *wire, n int) *Prober {
	var subnets []netip.Prefix
	for i := range n {
		subnets = append(subnets, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
	}
	w.last, w.least = make(map[netip.Addr]time.Time), time.Hour
	p := New(Config{Subnet: ours, MTU: 1420, Interval: 2 * time.Second, Peers: func() []netip.Prefix { return subnets }})
	p.open = func(netip.Addr, uint16) (socket, error) { return w, nil }
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

// A large probe is sent every 2 s, so a round of 60 peers takes two minutes. No peer
// is skipped, although the first ones are due again after one minute.
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

// A peer whose link is cut right after an answer is silent after three probes and the
// timeout of the last one.
func TestSilentInSevenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := over(w, 3)
		var c changes
		p.config.Changed = c.add
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
		if silent, _ := c.take(); len(silent) != 3 {
			t.Errorf("%v are silent, want all three", silent)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

// Hosts that start at the same moment do not probe the same peer first.
func TestHostsStartWithTheirNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := over(w, 1000)
		p.config.Subnet = netip.MustParsePrefix("10.2.7.0/24")
		runFor(t, p, time.Second)
		for _, first := range []string{"10.2.8.0", "10.2.74.0"} {
			if _, ok := w.last[netip.MustParseAddr(first)]; !ok {
				t.Errorf("%s is not among the first %d: %v", first, len(w.last), w.last)
			}
		}
	})
}

func TestThousandPeersInTenKilobytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := over(w, 1000)
		runFor(t, p, 5*time.Minute)
		// This host sends as many answers to others' probes.
		if rate := 2 * float64(w.bytes) / (5 * 60); rate >= 10_000 || rate < 5_000 {
			t.Errorf("%.0f bytes a second, want less than 10,000", rate)
		}
		if w.least < 30*time.Second {
			t.Errorf("a peer was probed after %v, want 30 s at least", w.least)
		}
		for subnet, r := range p.Results() {
			if r.Silent || r.Lost != 0 || r.Sent < 9 || r.RTT != roundTrip {
				t.Errorf("%v: %+v, want all answered, after %v", subnet, r, roundTrip)
			}
		}
		// Once for each burst, twice while a peer is not known yet.
		if bursts := w.packets / 67; w.looks > 6*bursts/5 {
			t.Errorf("looked for answers %d times, for %d bursts", w.looks, bursts)
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
	for limit := minSize; limit <= 9000; limit += 7 {
		s, got, probes := search{full: 8972}, 0, 0
		for got == 0 && probes < 60 {
			size := s.next(now)
			s.waiting = true
			probes++
			if size <= limit {
				got = s.passed(size, now)
			} else {
				got = s.lost(size, now)
			}
		}
		if want := min(limit, s.full); got > want || got < want-precision && limit > minSize+precision {
			t.Fatalf("limit %d: found %d after %d probes", limit, got, probes)
		}
		if s.next(now) != 0 || s.next(now.Add(largeEvery)) != s.full {
			t.Fatalf("limit %d: want the full size again after %v, and nothing before", limit, largeEvery)
		}
	}
}

// The kernel stamps an answer by the wall clock. If that was set in between, the round
// trip is unknown, but the peer counts as answering.
func TestClockSetUnderWay(t *testing.T) {
	at := time.Now()
	now := at.Add(time.Second)
	f := outstanding{at: at}
	for _, tt := range []struct {
		name string
		came time.Time
		want time.Duration
		ok   bool
	}{
		{"told", at.Add(3 * time.Millisecond), 3 * time.Millisecond, true},
		{"not told", time.Time{}, time.Second, false},
		{"clock set back", at.Add(-time.Hour), time.Second, false},
		{"clock set forward", at.Add(time.Hour), time.Second, false},
	} {
		if rtt, ok := f.roundTrip(tt.came.Round(0), now); rtt != tt.want || ok != tt.ok {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, rtt, ok, tt.want, tt.ok)
		}
	}
}

// Replies to another process's flood of pings leave room for ours.
func TestFloodOfOthers(t *testing.T) {
	a, b := hosts(t)
	a.Sysctl("net/ipv4/ping_group_range", "1 0") // a raw socket
	a.AddAddr("lo", host32(ours.Addr()))
	b.AddAddr("lo", host32(theirs.Addr()))
	err := a.Do(func() error {
		m, err := openSocket(ours.Addr(), 7)
		if err != nil {
			return err
		}
		defer m.Close()
		other, err := openSocket(ours.Addr(), 8)
		if err != nil {
			return err
		}
		defer other.Close()
		for range 2000 { // a socket's buffer holds some 270
			packet, err := stamp{id: 8}.request(1, SmallSize(inet.IPv4))
			if err != nil {
				return err
			}
			if err := other.send(packet, theirs.Addr()); err != nil {
				return err
			}
		}
		packet, err := stamp{id: 7}.request(1, SmallSize(inet.IPv4))
		if err != nil {
			return err
		}
		before := time.Now()
		if err := m.send(packet, theirs.Addr()); err != nil {
			return err
		}
		for end := before.Add(patience); ; {
			l, err := m.receive()
			switch {
			case err == nil:
				if seq, _, ok := (stamp{id: 7}).reply(l.message); !ok || seq != 1 || l.from != theirs.Addr() {
					t.Errorf("took %+v, want the answer to our request", l)
				}
				if l.at.Before(before.Round(0)) || l.at.After(time.Now().Round(0)) {
					t.Errorf("it came at %v, want after %v", l.at, before)
				}
				return nil
			case time.Now().After(end):
				return fmt.Errorf("no answer: %w", err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An answer after the timeout does not count, although it is in the socket's buffer at
// the next collect, before the next burst.
func TestLateAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := over(w, 3)
		var c changes
		p.config.Changed = c.add
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- p.Run(ctx) }()
		<-time.After(20 * time.Second)
		w.mu.Lock()
		w.delay = 3 * timeout / 2
		w.mu.Unlock()
		<-time.After(20 * time.Second)
		for subnet, r := range p.Results() {
			if !r.Silent || r.Lost < silentAfter || r.RTT != roundTrip {
				t.Errorf("%v: %+v, want it silent, and the last round trip that was in time", subnet, r)
			}
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}
