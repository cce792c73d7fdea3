package udpsock

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func listen1(t *testing.T, cfg Config) *Conn {
	t.Helper()
	if !cfg.Local.IsValid() {
		cfg.Local = loopback
	}
	conns, err := Listen(cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(conns[0].Close(), conns[0].Close()); err != nil {
			t.Error(err)
		}
	})
	return conns[0]
}

func openSend(t *testing.T, cfg Config) *SendConn {
	t.Helper()
	if !cfg.Local.IsValid() {
		cfg.Local = loopback
	}
	c, err := OpenSend(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func dest(t *testing.T, to netip.AddrPort) *Dest {
	t.Helper()
	return NewDest(to)
}

// train returns count datagrams of two buffers each, the last one shorter by short.
func train(fill byte, size, count, short int) (bufs [][]byte) {
	for i := range count {
		if i == count-1 {
			size -= short
		}
		bufs = append(bufs, []byte{fill}, bytes.Repeat([]byte{byte(i)}, size-1))
	}
	return bufs
}

// datagrams reads n datagrams, in any number of messages.
func datagrams(t *testing.T, r *Receiver, n int) (out [][]byte) {
	t.Helper()
	for len(out) < n {
		k, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for i := range k {
			m := r.Message(i)
			if !m.From.Addr().IsLoopback() {
				t.Fatalf("from %v", m.From.Addr())
			}
			for d := range slices.Chunk(m.Data, m.SegLen) {
				out = append(out, slices.Clone(d))
			}
		}
	}
	return out
}

func send(t *testing.T, s *Sender) []Result {
	t.Helper()
	results, err := s.Send()
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// Every combination of offloads delivers the same datagrams, in both families.
func TestOffloadsDoNotChangeDatagrams(t *testing.T) {
	var all []Config
	for _, local := range []netip.AddrPort{loopback, netip.MustParseAddrPort("[::1]:0")} {
		for _, c := range []Config{{}, {NoSegment: true}, {NoGRO: true}, {NoSegment: true, NoGRO: true}} {
			c.Local = local
			all = append(all, c)
		}
	}
	for _, cfg := range all {
		in := listen1(t, Config{Local: cfg.Local, NoGRO: cfg.NoGRO, Buffer: 1 << 20})
		out := openSend(t, Config{Local: cfg.Local, NoSegment: cfg.NoSegment})
		to := dest(t, in.LocalAddr())
		s, r := NewSender(out), NewReceiver(in, 8)
		var want [][]byte
		for _, size := range []int{200, 1000} {
			bufs := train('a', size, 40, 50)
			if _, ok := s.Add(to, bufs, size, 40); !ok {
				send(t, s)
				if _, ok = s.Add(to, bufs, size, 40); !ok {
					t.Fatal("no room in an empty sender")
				}
			}
			for pair := range slices.Chunk(bufs, 2) {
				want = append(want, slices.Concat(pair...))
			}
		}
		for _, res := range send(t, s) {
			if res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		if got := datagrams(t, r, len(want)); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%+v: datagrams changed", cfg)
		}
	}
}

func TestOneSendIsOneReceive(t *testing.T) {
	in, out := listen1(t, Config{Buffer: 1 << 20}), listen1(t, Config{})
	if err := errors.Join(in.Features().GRO, out.Features().Segment); err != nil {
		t.Logf("kernel without offload: %v", err)
		return
	}
	s, r := NewSender(out), NewReceiver(in, 4)
	if _, ok := s.Add(dest(t, in.LocalAddr()), train('a', 1000, 10, 1), 1000, 10); !ok {
		t.Fatal("no room")
	}
	results := send(t, s)
	if len(results) != 1 || results[0] != (Result{Packets: 10, Bytes: 9999}) {
		t.Errorf("results %+v", results)
	}
	n, err := r.Receive()
	if err != nil {
		t.Fatal(err)
	}
	m := r.Message(0)
	if n > 1 && len(m.Data) == 1000 {
		netnstest.SoftwareTrains.Missing(t, "the device cuts them")
		return
	}
	if n != 1 || m.SegLen != 1000 || len(m.Data) != 9999 {
		t.Errorf("%d messages, first of %d bytes, segments of %d", n, len(m.Data), m.SegLen)
	}
}

func TestAddJoinsWhatFits(t *testing.T) {
	out := listen1(t, Config{})
	if err := out.Features().Segment; err != nil {
		t.Logf("kernel without UDP_SEGMENT: %v", err)
		return
	}
	a, b := dest(t, netip.MustParseAddrPort("127.0.0.1:9")), dest(t, netip.MustParseAddrPort("127.0.0.1:9"))
	type add struct {
		to   *Dest
		size int
		n    int
		want int // messages afterwards
	}
	for name, adds := range map[string][]add{
		"equal":             {{a, 100, 1, 1}, {a, 100, 1, 1}, {a, 100, 3, 1}},
		"shorter ends":      {{a, 100, 1, 1}, {a, 60, 1, 1}, {a, 60, 1, 2}},
		"longer":            {{a, 100, 1, 1}, {a, 101, 1, 2}},
		"shorter train":     {{a, 100, 1, 1}, {a, 60, 2, 2}},
		"other destination": {{a, 100, 1, 1}, {b, 100, 1, 2}, {a, 100, 1, 3}},
		"segment limit":     {{a, 100, 60, 1}, {a, 100, 4, 1}, {a, 100, 1, 2}},
		"byte limit":        {{a, 1500, 43, 1}, {a, 1500, 1, 2}},
	} {
		s := NewSender(out)
		for i, x := range adds {
			at, ok := s.Add(x.to, train('x', x.size, x.n, 0), x.size, x.n)
			if !ok || s.Len() != x.want || at != x.want-1 {
				t.Errorf("%s: after addition %d: %d messages, index %d, %v; want %d", name, i, s.Len(), at, ok, x.want)
			}
		}
	}
}

func TestAddSaysWhenFull(t *testing.T) {
	for _, cfg := range []Config{{}, {NoSegment: true}} {
		s := NewSender(listen1(t, cfg))
		to := dest(t, netip.MustParseAddrPort("127.0.0.1:9"))
		// Two destinations in turn reach the limit of messages, two buffers for each
		// datagram the limit of buffers.
		for _, c := range []struct {
			to   []*Dest
			bufs [][]byte
		}{{[]*Dest{to, dest(t, netip.MustParseAddrPort("127.0.0.1:9"))}, [][]byte{make([]byte, 1000)}}, {[]*Dest{to}, train('x', 1000, 1, 0)}} {
			added := 0
			for ; added < 1000; added++ {
				if _, ok := s.Add(c.to[added%len(c.to)], c.bufs, 1000, 1); !ok {
					break
				}
			}
			packets := 0
			for _, r := range send(t, s) {
				packets += r.Packets
			}
			if added == 1000 || packets != added || added < MaxSegments {
				t.Errorf("%+v: %d added, %d sent", cfg, added, packets)
			}
		}
		if _, ok := s.Add(to, train('x', 10, MaxSegments, 0), 10, MaxSegments); !ok {
			t.Errorf("%+v: no room after Send", cfg)
		}
	}
}

// SO_NO_CHECK makes UDP_SEGMENT fail with EINVAL, but not single datagrams
// (udp_send_skb), like a kernel that refuses the offload only when sending.
func TestLateRefusalTurnsSegmentOff(t *testing.T) {
	in, out := listen1(t, Config{Buffer: 1 << 20}), listen1(t, Config{})
	if err := out.setsockopt(unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
	s, r, to := NewSender(out), NewReceiver(in, 8), dest(t, in.LocalAddr())
	for range 2 {
		bufs := train('a', 500, 5, 100)
		if _, ok := s.Add(to, bufs, 500, 5); !ok {
			t.Fatal("no room")
		}
		for _, res := range send(t, s) {
			if res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		got := datagrams(t, r, 5)
		for i, pair := range slices.Collect(slices.Chunk(bufs, 2)) {
			if !bytes.Equal(got[i], slices.Concat(pair...)) {
				t.Fatalf("datagram %d changed", i)
			}
		}
		if err := out.Features().Segment; !errors.Is(err, ErrRefused) {
			t.Fatalf("UDP_SEGMENT after a refusal: %v", err)
		}
	}
}

// A datagram of IPv6 without a checksum arrives at a socket that accepts it, and at no
// other.
func TestAcceptZeroChecksum(t *testing.T) {
	any6 := netip.AddrPortFrom(netip.IPv6Loopback(), 0)
	in, out := listen1(t, Config{Local: any6}), listen1(t, Config{Local: any6})
	r, to := NewReceiver(in, 8), in.LocalAddr()
	send := func(text string, without int) {
		t.Helper()
		if err := errors.Join(out.setsockopt(unix.SOL_UDP, unix.UDP_NO_CHECK6_TX, without), out.Send([]byte(text), to)); err != nil {
			t.Fatal(err)
		}
	}
	send("dropped", 1)
	if err := in.AcceptZeroChecksum(); err != nil {
		t.Fatal(err)
	}
	send("without", 1)
	send("with", 0)
	for i, got := range datagrams(t, r, 2) {
		if want := []string{"without", "with"}[i]; string(got) != want {
			t.Errorf("datagram %d is %q, want %q", i, got, want)
		}
	}
}

// smallLoopback returns a namespace whose loopback has an MTU of 1000 bytes.
func smallLoopback(t *testing.T) *netnstest.Host {
	t.Helper()
	netnstest.Require(t)
	h := netnstest.New(t).Namespace("small")
	lo, err := h.Netlink().LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Netlink().LinkSetMTU(lo, 1000); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestSendReportsEachMessage(t *testing.T) {
	h := smallLoopback(t)
	var conns []*Conn
	err := h.Do(func() (err error) { conns, err = Listen(Config{Local: loopback}, 1); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	s := NewSender(conns[0])
	ok, unroutable := dest(t, conns[0].LocalAddr()), dest(t, netip.MustParseAddrPort("10.1.2.3:4"))
	for _, x := range []struct {
		to             *Dest
		size, n, short int
	}{{ok, 900, 2, 0}, {ok, 1100, 1, 0}, {unroutable, 10, 1, 0}, {ok, 1100, 3, 50}, {ok, 972, 3, 0}} {
		if _, fits := s.Add(x.to, train('x', x.size, x.n, x.short), x.size, x.n); !fits {
			t.Fatal("no room")
		}
	}
	results := send(t, s)
	if len(results) != 5 {
		t.Fatalf("%d results, want 5", len(results))
	}
	for i, want := range []error{nil, unix.EMSGSIZE, unix.ENETUNREACH, unix.EMSGSIZE, nil} {
		if !errors.Is(results[i].Err, want) {
			t.Errorf("message %d: %v, want %v", i, results[i].Err, want)
		}
	}
	if err := conns[0].Features().Segment; err != nil {
		t.Errorf("a datagram that was too large turned UDP_SEGMENT off: %v", err)
	}
	for stopAt, want := range map[int][]int{9: {1100, 1100, 1050}, 2: {1100, 1100}} {
		var sizes []int
		s.Packets(3, func(bufs [][]byte) bool {
			sizes = append(sizes, len(slices.Concat(bufs...)))
			return len(sizes) < stopAt
		})
		if !slices.Equal(sizes, want) {
			t.Errorf("packets of the fourth message: %v, want %v", sizes, want)
		}
	}
}

func TestDropsAreCounted(t *testing.T) {
	in, out := listen1(t, Config{Buffer: 4096}), listen1(t, Config{NoSegment: true})
	s, r, to := NewSender(out), NewReceiver(in, 16), dest(t, in.LocalAddr())
	const sent = 60
	for range sent {
		if _, ok := s.Add(to, train('x', 1000, 1, 0), 1000, 1); !ok {
			t.Fatal("no room")
		}
	}
	send(t, s) // over loopback a datagram is queued or dropped when this returns
	received := 0
	for inQueue(t, in) > 0 {
		n, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		received += n
	}
	s.Add(to, train('x', 10, 1, 0), 10, 1)
	send(t, s)
	datagrams(t, r, 1)
	s.Add(to, train('x', 10, 1, 0), 10, 1)
	send(t, s)
	datagrams(t, r, 1) // repeats the same count
	if received == sent || in.Drops() != uint64(sent-received) {
		t.Errorf("%d of %d received, %d drops", received, sent, in.Drops())
	}
}

// inQueue returns the length of the next queued datagram; 0 if there is none.
func inQueue(t *testing.T, c interface {
	control(func(fd int) error) error
}) (n int) {
	t.Helper()
	err := c.control(func(fd int) (err error) { n, err = unix.IoctlGetInt(fd, unix.SIOCINQ); return err })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSendConnReceivesNothing(t *testing.T) {
	in, out := openSend(t, Config{}), listen1(t, Config{})
	var to *Dest
	err := in.control(func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		in4 := sa.(*unix.SockaddrInet4)
		to = NewDest(netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSender(out)
	s.Add(to, train('x', 10, 1, 0), 10, 1)
	send(t, s)
	if n := inQueue(t, in); n != 0 {
		t.Errorf("a datagram of %d bytes waits", n)
	}
}

func TestListenSharesAPort(t *testing.T) {
	conns, err := Listen(Config{Local: loopback}, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		defer c.Close()
	}
	for i, c := range conns {
		if c.LocalAddr() != conns[0].LocalAddr() {
			t.Errorf("socket %d has address %v", i, c.LocalAddr())
		}
	}
	const flows = 64
	to := conns[0].LocalAddr().String()
	for range flows {
		c, err := net.Dial("udp4", to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	// Over loopback, a datagram is in its queue when the send returns.
	per := make([]int, len(conns))
	for i, c := range conns {
		for r := NewReceiver(c, 4); inQueue(t, c) > 0; {
			n, err := r.Receive()
			if err != nil {
				t.Fatal(err)
			}
			per[i] += n
		}
	}
	if per[0]+per[1]+per[2] != flows || slices.Contains(per, 0) {
		t.Errorf("flows per socket: %v", per)
	}
	for _, n := range []int{1, 2} {
		if _, err := Listen(Config{Local: conns[0].LocalAddr()}, n); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("second owner of the port with %d sockets: %v, want EADDRINUSE", n, err)
		}
	}
}

func TestWakeAndCloseEndReceive(t *testing.T) {
	for name, c := range map[string]struct {
		end        func(*Conn) error
		want, send error
	}{
		"Wake":  {(*Conn).Wake, os.ErrDeadlineExceeded, nil}, // what was received before can still leave
		"Close": {(*Conn).Close, net.ErrClosed, net.ErrClosed},
	} {
		conn := listen1(t, Config{})
		got := make(chan error, 1)
		started := make(chan struct{})
		go func() {
			close(started)
			_, err := NewReceiver(conn, 1).Receive()
			got <- err
		}()
		<-started
		if err := c.end(conn); err != nil {
			t.Fatal(err)
		}
		if err := <-got; !errors.Is(err, c.want) {
			t.Errorf("%s: receive: %v, want %v", name, err, c.want)
		}
		s := NewSender(conn)
		s.Add(dest(t, netip.MustParseAddrPort("127.0.0.1:9")), train('x', 10, 1, 0), 10, 1)
		if _, err := s.Send(); !errors.Is(err, c.send) {
			t.Errorf("%s: send: %v, want %v", name, err, c.send)
		}
	}
}

// What arrives between Wake and Resume waits for the next Receiver.
func TestResume(t *testing.T) {
	conn := listen1(t, Config{})
	if err := conn.Wake(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewReceiver(conn, 1).Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("receive after Wake: %v", err)
	}
	sender, err := OpenSend(Config{Local: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	if err := sender.Send([]byte("waits"), conn.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if err := conn.Resume(); err != nil {
		t.Fatal(err)
	}
	r := NewReceiver(conn, 1)
	if n, err := r.Receive(); err != nil || n != 1 || string(r.Message(0).Data) != "waits" {
		t.Errorf("received %d messages, %v", n, err)
	}
}

func TestBuffersAreSet(t *testing.T) {
	in := listen1(t, Config{Buffer: 8 << 20})
	var receive, send int
	err := in.control(func(fd int) (err error) {
		if receive, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil {
			return err
		}
		send, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	receive, send = receive/2, send/2 // the kernel doubles it for its own overhead, socket(7)
	if receive <= 0 || send <= 0 || receive > 8<<20 || os.Geteuid() == 0 && receive != 8<<20 {
		t.Errorf("buffers of %d and %d bytes", receive, send)
	}
}

// TestSmallBuffers runs itself again where net.core.rmem_max and wmem_max hold. A socket
// with smaller buffers than configured has the reason and the remedy.
func TestSmallBuffers(t *testing.T) {
	const marker, size = "FLANNEL_TEST_SMALL_BUFFERS", 1 << 30
	if os.Getenv(marker) == "" {
		if err := listen1(t, Config{Buffer: 4096}).Features().Buffers; err != nil {
			t.Errorf("buffers that fit: %v", err)
		}
		netnstest.Require(t)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), "setpriv", "--bounding-set=-net_admin", self, "-test.run=^TestSmallBuffers$")
		c.Env = append(os.Environ(), marker+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	why := fmt.Sprint(listen1(t, Config{Buffer: size}).Features().Buffers)
	for _, want := range []string{"send buffer of ", "sysctl -w net.core.rmem_max=1073741824", "; receive buffer of ", "sysctl -w net.core.wmem_max=1073741824"} {
		if !strings.Contains(why, want) {
			t.Errorf("the reason is %q, want %q in it", why, want)
		}
	}
}

func TestMangles(t *testing.T) {
	for release, want := range map[string]bool{
		"6.18.44": false, "7.0.0-rc1": true, "7.0.2-6-pve": true, "7.1.4": true, "7.1-rc3": true,
		"7.1.5": false, "7.2.0": false, "70.0.1": false, "": false, "unknown": false,
	} {
		if got := mangles(release); got != want {
			t.Errorf("mangles(%q) = %v", release, got)
		}
	}
}

func TestSwitchesAreReported(t *testing.T) {
	f := listen1(t, Config{NoSegment: true, NoGRO: true}).Features()
	if !errors.Is(f.Segment, ErrSwitchedOff) || !errors.Is(f.GRO, ErrSwitchedOff) {
		t.Errorf("features %+v", f)
	}
}

func TestNothingAllocates(t *testing.T) {
	for _, cfg := range []Config{{}, {NoSegment: true, NoGRO: true}} {
		cfg.Buffer = 1 << 20
		in, out := listen1(t, cfg), listen1(t, cfg)
		s, r, to := NewSender(out), NewReceiver(in, 64), dest(t, in.LocalAddr())
		bufs := train('x', 1000, 20, 5)
		var failure error
		if n := testing.AllocsPerRun(100, func() {
			if _, ok := s.Add(to, bufs, 1000, 20); !ok {
				failure = errors.New("no room")
			}
			if _, err := s.Send(); err != nil {
				failure = err
			}
			for got := 0; got < 20*1000-5; {
				k, err := r.Receive()
				if err != nil {
					failure = err
					return
				}
				for i := range k {
					got += len(r.Message(i).Data)
				}
			}
		}); n != 0 || failure != nil {
			t.Errorf("%+v: %v allocations per batch, error %v", cfg, n, failure)
		}
	}
}
