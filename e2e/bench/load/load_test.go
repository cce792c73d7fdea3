package load

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// ends are two hosts on a veth pair. The test is skipped where the tools are
// not.
func ends(t *testing.T) (a, b End) {
	t.Helper()
	netnstest.Require(t)
	for _, tool := range []string{"iperf3", "sockperf"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not in PATH; install the Debian package %s", tool, tool)
		}
	}
	lab := netnstest.New(t)
	a, b = End{Host: lab.Namespace("a")}, End{Host: lab.Namespace("b")}
	lab.Wire(a.Host, "link0", b.Host, "link0", 0)
	for i, e := range []*End{&a, &b} {
		e.Addr = netip.AddrFrom4([4]byte{172, 20, 0, byte(i + 1)})
		e.AddAddr("link0", netip.PrefixFrom(e.Addr, 16))
	}
	return a, b
}

func TestTCP(t *testing.T) {
	for _, o := range []Transfer{{Streams: 1}, {Streams: 4, Reverse: true}} {
		a, b := ends(t)
		o.Seconds, o.Congestion = 1, "cubic"
		got, err := TCP(t.Context(), a, b, o)
		if err != nil || got.Gbps <= 0 || got.CPU <= 0 {
			t.Errorf("%+v: %+v, %v", o, got, err)
		}
		sent, received := counters(t, a)
		if o.Reverse != (received > sent) {
			t.Errorf("%+v: a sent %d bytes and received %d", o, sent, received)
		}
	}
}

func counters(t *testing.T, e End) (sent, received uint64) {
	t.Helper()
	link, err := e.Netlink().LinkByName("link0")
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Statistics.TxBytes, link.Attrs().Statistics.RxBytes
}

func TestTCPWithoutCongestionControl(t *testing.T) {
	a, b := ends(t)
	if got, err := TCP(t.Context(), a, b, Transfer{Streams: 1, Seconds: 1, Congestion: "no-such"}); err == nil {
		t.Errorf("got %+v with a congestion control that there is not", got)
	}
}

func TestPackets(t *testing.T) {
	a, b := ends(t)
	got, err := Packets(t.Context(), a, b, 64, 1)
	if err != nil || got.Rate <= 0 || got.CPU <= 0 || got.Loss < 0 || got.Loss >= 100 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPingPong(t *testing.T) {
	a, b := ends(t)
	for _, network := range []string{"udp", "tcp", "tcp"} { // a server's port is free again
		got, err := PingPong(t.Context(), a, b, network, 1)
		if err != nil || got.P50 <= 0 || got.P99 < got.P50 {
			t.Errorf("%s: %+v, %v", network, got, err)
		}
		if found, err := listening(b, network, sockperfPort); found || err != nil {
			t.Errorf("%s: the server is still there: %v, %v", network, found, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	a, b := ends(t)
	a.Down("link0")
	if got, err := Packets(t.Context(), a, b, 64, 1); err == nil {
		t.Errorf("delivered %+v over a link that is down", got)
	}
	if got, err := TCP(t.Context(), a, b, Transfer{Streams: 1, Seconds: 1, Congestion: "cubic"}); err == nil {
		t.Errorf("transferred %+v over a link that is down", got)
	}
}

func TestCancelled(t *testing.T) {
	a, b := ends(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Packets(ctx, a, b, 64, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Packets: %v, want context.Canceled", err)
	}
	if _, err := PingPong(ctx, a, b, "udp", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("PingPong: %v, want context.Canceled", err)
	}
	// Nothing listens any longer.
	for _, network := range []string{"udp", "tcp"} {
		if found, err := listening(b, network, sockperfPort); found || err != nil {
			t.Errorf("%s port is still in use: %v, %v", network, found, err)
		}
	}
}

// The sink counts each packet once, also those of an overfull batch and those
// larger than its buffers.
func TestSink(t *testing.T) {
	a, b := ends(t)
	s, err := openSink(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.busy(); err == nil {
		t.Error("a cost before the first packet")
	}
	c, err := a.Dial(t.Context(), "udp4", netip.AddrPortFrom(b.Addr, sockperfPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const sent = 3*sinkBatch + 1
	for i := range sent {
		if _, err := c.Write(make([]byte, 1+i%1400)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.drain(t.Context()); err != nil || got != sent {
		t.Errorf("counted %d, %v; want %d", got, err, sent)
	}
	if busy, err := s.busy(); err != nil || busy < 0 {
		t.Errorf("cost %v, %v", busy, err)
	}
}

// An ordinary process gets no more than net.core.rmem_max.
func TestSinkBuffer(t *testing.T) {
	_, b := ends(t)
	s, err := openSink(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	raw, err := s.conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		// The kernel doubles what it is asked for (socket(7)).
		if got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || got != 2*sinkBuffer {
			t.Errorf("buffer of %d bytes, %v; want %d", got, err, 2*sinkBuffer)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
