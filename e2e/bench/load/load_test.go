package load

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

func TestMain(m *testing.M) {
	if code, run := Main(); run {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// ends are two hosts on a veth pair. The test is skipped without iperf3.
func ends(t *testing.T) (a, b End) {
	t.Helper()
	return endsOf(t, netip.MustParsePrefix("172.20.0.0/16"))
}

// endsOf are two hosts with addresses of a network.
func endsOf(t *testing.T, network netip.Prefix) (a, b End) {
	t.Helper()
	netnstest.Require(t)
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("iperf3 is not in PATH; install the Debian package iperf3")
	}
	lab := netnstest.New(t)
	a, b = End{Host: lab.Namespace("a")}, End{Host: lab.Namespace("b")}
	lab.Wire(a.Host, "link0", b.Host, "link0", 0)
	addr := network.Addr()
	for _, e := range []*End{&a, &b} {
		addr = addr.Next()
		e.Addr = addr
		e.AddAddr("link0", netip.PrefixFrom(addr, network.Bits()))
	}
	return a, b
}

func TestTCP(t *testing.T) {
	for _, o := range []Transfer{{Streams: 1}, {Streams: 4, Reverse: true}} {
		a, b := ends(t)
		o.Seconds, o.Congestion = 1, "cubic"
		got, err := TCP(t.Context(), a, b, o)
		if err != nil || got.Gbps <= 0 || got.CPU <= 0 || got.Retransmits < 0 {
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

func TestTransactions(t *testing.T) {
	a, b := ends(t)
	for _, network := range []string{"udp", "tcp", "tcp"} { // a server's port is free again
		got, err := RequestResponse(t.Context(), a, b, network, 1)
		check(t, b, network, got, err)
	}
	before := established(t, b)
	got, err := ConnectRequestResponse(t.Context(), a, b, 1)
	check(t, b, "tcp", got, err)
	// The rate is that of the connections.
	if n := established(t, b) - before; float64(n) < got.Rate {
		t.Errorf("%v connections a second, and %d in all", got.Rate, n)
	}
}

// check checks the figures of a load of 1 s, and that its server has ended.
func check(t *testing.T, b End, network string, got Transactions, err error) {
	t.Helper()
	if err != nil || got.Rate <= 0 || got.P50 <= 0 || got.P99 < got.P50 || got.P999 < got.P99 || got.CPU < 0 {
		t.Errorf("%s: %+v, %v", network, got, err)
	}
	// One transaction is in flight, so half of them fill at most the whole time.
	if got.Rate*got.P50/2 > 1.1e6 {
		t.Errorf("%s: %+v take more than a second", network, got)
	}
	if found, err := listening(b, network, loadPort); found || err != nil {
		t.Errorf("%s: the server is still there: %v, %v", network, found, err)
	}
}

// Every load runs between IPv6 addresses, too.
func TestIPv6(t *testing.T) {
	a, b := endsOf(t, netip.MustParsePrefix("fd00:172:20::/64"))
	if got, err := TCP(t.Context(), a, b, Transfer{Streams: 1, Seconds: 1, Congestion: "cubic"}); err != nil || got.Gbps <= 0 {
		t.Errorf("TCP: %+v, %v", got, err)
	}
	if got, err := Packets(t.Context(), a, b, 64, 1); err != nil || got.Rate <= 0 {
		t.Errorf("packets: %+v, %v", got, err)
	}
	for _, network := range []string{"udp", "tcp"} {
		got, err := RequestResponse(t.Context(), a, b, network, 1)
		check(t, b, network, got, err)
	}
	got, err := ConnectRequestResponse(t.Context(), a, b, 1)
	check(t, b, "tcp", got, err)
}

// established returns how many connections an end has accepted.
func established(t *testing.T, e End) (n uint64) {
	t.Helper()
	err := e.Do(func() error {
		fs, err := procfs.NewDefaultFS()
		if err != nil {
			return err
		}
		p, err := fs.Thread(os.Getpid(), unix.Gettid())
		if err != nil {
			return err
		}
		snmp, err := p.Snmp()
		if err == nil {
			n = uint64(*snmp.Tcp.PassiveOpens)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A lost request is sent again, and a server that never answers ends the client.
func TestLostRequests(t *testing.T) {
	a, b := ends(t)
	silent, err := b.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(b.Addr, loadPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	go func() { // answers each third packet, with an old response first
		buf := make([]byte, messageSize)
		for n := 1; ; n++ {
			size, from, err := silent.ReadFrom(buf)
			if err != nil {
				return
			}
			if n%3 == 0 {
				_, _ = silent.WriteTo(make([]byte, messageSize), from)
				_, _ = silent.WriteTo(buf[:size], from)
			}
		}
	}()
	r, err := runClient(t.Context(), a, b, udpRR, messageSize, 1)
	if err != nil {
		t.Fatal(err)
	}
	if want := float64(2 * resendAfter.Microseconds()); r.P50 < want {
		t.Errorf("half of the transactions take %v µs, want %v at least", r.P50, want)
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
	if got, err := ConnectRequestResponse(t.Context(), a, b, 1); err == nil {
		t.Errorf("transactions %+v over a link that is down", got)
	}
}

func TestCancelled(t *testing.T) {
	a, b := ends(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Packets(ctx, a, b, 64, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Packets: %v, want context.Canceled", err)
	}
	if _, err := RequestResponse(ctx, a, b, "udp", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("RequestResponse: %v, want context.Canceled", err)
	}
	// Nothing listens any longer.
	for _, network := range []string{"udp", "tcp"} {
		if found, err := listening(b, network, loadPort); found || err != nil {
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
	c, err := a.Dial(t.Context(), "udp4", netip.AddrPortFrom(b.Addr, loadPort).String())
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
