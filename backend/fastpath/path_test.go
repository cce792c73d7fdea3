package fastpath

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestExchange sees both directions of a TCP flow take the fast path at both
// hosts.
func TestExchange(t *testing.T) {
	eachWay(t, func(t *testing.T, direct bool) {
		_, a, b := newHostsBy(t, direct)
		for _, h := range []*host{a, b} {
			h.start(h.known())
		}
		warm(t, a, b)
	})
}

// newRunning makes two hosts that have found their containers.
func newRunning(t *testing.T) (a, b *host) {
	t.Helper()
	return newRunningBy(t, false)
}

func newRunningBy(t *testing.T, direct bool) (a, b *host) {
	t.Helper()
	_, a, b = newHostsBy(t, direct)
	runBoth(t, a, b)
	return a, b
}

// runBoth has two hosts find their containers.
func runBoth(t *testing.T, a, b *host) {
	t.Helper()
	for _, h := range []*host{a, b} {
		h.run()
	}
	connect(t, a, b).exchange(1)
	for _, h := range []*host{a, b} {
		h.serves(1)
	}
}

// warm opens a connection and has it take the fast path.
func warm(t *testing.T, a, b *host) stream {
	t.Helper()
	s := connect(t, a, b)
	for _, h := range []*host{a, b} {
		h.until("a flow takes the fast path", func() bool {
			sent, received := h.fast(func() { s.exchange(20) })
			return sent >= 20 && received >= 20
		})
	}
	return s
}

// TestRun sees containers found without help.
func TestRun(t *testing.T) { eachWay(t, testRun) }

func testRun(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	warm(t, a, b).exchange(100)
	for _, h := range []*host{a, b} {
		if off := h.path.Status().Off; len(off) > 0 {
			t.Errorf("host %s: the fast path is off: %q", h.Name(), off)
		}
	}
}

// silent fails the test if something arrives within the time of a
// retransmission.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes arrived (%v); want none", n, err)
	}
	limit(t, c)
}

// limit has the test fail, not hang, if a packet is lost.
func limit(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// TestOneWayUDP sees datagrams that nobody answers take the fast path, and
// answers to them dropped by a rule about answers only.
func TestOneWayUDP(t *testing.T) { eachWay(t, testOneWayUDP) }

func testOneWayUDP(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	a.nft("table ip user { chain forward { type filter hook forward priority filter; iifname " + a.outer() + " meta l4proto udp drop; }; }")
	s := datagrams(t, a, b)
	receive := make([]byte, 100)
	send := func(n int) {
		for range n {
			if _, err := s.from.Write([]byte("message")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.to.Read(receive); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.until("datagrams take the fast path", func() bool {
		sent, _ := a.fast(func() { send(1) })
		return sent == 1
	})
	b.until("datagrams are received by the fast path", func() bool {
		_, received := b.fast(func() { send(1) })
		return received == 1
	})
	if sent, _ := a.fast(func() { send(100) }); sent != 100 {
		t.Errorf("%d datagrams of 100 took the fast path", sent)
	}
	if _, received := b.fast(func() { send(100) }); received != 100 {
		t.Errorf("%d datagrams of 100 were received by the fast path", received)
	}
	for range 32 {
		if _, err := s.to.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
	}
	silent(t, s.from)
}

// TestAnswersDropped has the host of the answering container drop its answers. The
// direction to it takes the fast path, and the answers never do.
func TestAnswersDropped(t *testing.T) { eachWay(t, testAnswersDropped) }

func testAnswersDropped(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	b.nft("table ip user { chain forward { type filter hook forward priority filter; oifname " + b.outer() + " meta l4proto udp drop; }; }")
	s := datagrams(t, a, b)
	b.until("datagrams are received by the fast path", func() bool {
		_, received := b.fast(func() { relay(t, s.from, s.to) })
		return received > 0
	})
	sent, _ := b.fast(func() {
		for range 64 {
			if _, err := s.to.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
		}
	})
	if sent > 0 {
		t.Errorf("%d answers took the fast path", sent)
	}
	silent(t, s.from)
	if n := b.stats().LongWay["not_passed_by_rules"].Packets; n == 0 {
		t.Error("no packet is counted as not passed by rules")
	}
}

// datagrams makes two connected UDP sockets.
func datagrams(t *testing.T, a, b *host) stream {
	t.Helper()
	return datagramsAt(t, a, b, 7000)
}

func datagramsAt(t *testing.T, a, b *host, port uint16) stream {
	t.Helper()
	open := func(h *host, peer *host) (c net.Conn) {
		h.must(h.container.Do(func() (err error) {
			c, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.addr(), port)),
				net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer.addr(), port)))
			return err
		}))
		t.Cleanup(func() { c.Close() })
		limit(t, c)
		return c
	}
	return stream{t, open(a, b), open(b, a)}
}

// TestTranslated sees flows that the host translates take the long way.
func TestTranslated(t *testing.T) { eachWay(t, testTranslated) }

func testTranslated(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	a.nft("table ip user { chain postrouting { type nat hook postrouting priority srcnat; oifname " + a.outer() + " masquerade; }; }")
	s := connect(t, a, b)
	sent, received := a.fast(func() {
		a.until("a packet is counted as translated", func() bool {
			s.exchange(20)
			return a.stats().LongWay["translated"].Packets > 0
		})
		s.exchange(100)
	})
	if sent+received > 0 {
		t.Errorf("%d and %d packets of a translated flow took the fast path", sent, received)
	}
}

// TestFIN ends a connection after far more bytes than a window has, at hosts
// that drop what connection tracking calls invalid.
func TestFIN(t *testing.T) { eachWay(t, testFIN) }

func testFIN(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	for _, h := range []*host{a, b} {
		h.nft("table ip user { chain forward { type filter hook forward priority filter; ct state invalid counter drop; }; }")
	}
	s := warm(t, a, b)
	done := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, s.to)
		done <- n
	}()
	const size = 20 << 20
	if _, err := s.from.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := s.from.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-done:
		if n != size {
			t.Errorf("%d bytes arrived of %d", n, size)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the connection's end did not arrive")
	}
	if _, err := s.to.Write([]byte("half closed")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s.from, make([]byte, 11)); err != nil {
		t.Error(err)
	}
}
