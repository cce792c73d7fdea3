package wireguard

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/udpsock"
)

// openBind is a bind that is open, and what it receives.
type openBind struct {
	*testing.T
	*bind
	port    uint16
	receive conn.ReceiveFunc
	bufs    [][]byte
	sizes   []int
	eps     []conn.Endpoint
}

func newEnd(t *testing.T) *openBind {
	t.Helper()
	e := &openBind{T: t, bind: &bind{families: []inet.Family{inet.IPv4}}, sizes: make([]int, conn.IdealBatchSize), eps: make([]conn.Endpoint, conn.IdealBatchSize)}
	for range conn.IdealBatchSize {
		e.bufs = append(e.bufs, make([]byte, 1<<16))
	}
	e.open()
	t.Cleanup(func() {
		if err := errors.Join(e.Close(), e.Close()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func (e *openBind) open() {
	e.Helper()
	fns, port, err := e.Open(0)
	if err != nil {
		e.Fatal(err)
	}
	e.receive, e.port = fns[0], port
}

func (e *openBind) endpoint(text string) conn.Endpoint {
	e.Helper()
	ep, err := e.ParseEndpoint(text)
	if err != nil {
		e.Fatal(err)
	}
	return ep
}

func (e *openBind) send(bufs [][]byte, to conn.Endpoint) {
	e.Helper()
	if err := e.Send(bufs, to); err != nil {
		e.Fatal(err)
	}
}

// take receives n datagrams, and says from where the last one came.
func (e *openBind) take(n int) (got [][]byte, from *endpoint) {
	e.Helper()
	for len(got) < n {
		k, err := e.receive(e.bufs, e.sizes, e.eps)
		if err != nil {
			e.Fatal(err)
		}
		if k == 0 {
			e.Fatal("received nothing")
		}
		for i := range k {
			got = append(got, bytes.Clone(e.bufs[i][:e.sizes[i]]))
		}
		from = e.eps[k-1].(*endpoint)
	}
	return got, from
}

// Datagrams of all lengths arrive as they were sent, in their order.
func TestBindCarriesDatagrams(t *testing.T) {
	a, b := newEnd(t), newEnd(t)
	to := a.endpoint(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), b.port).String())
	var first *endpoint
	for name, sizes := range map[string][]int{
		"one": {32}, "whole batch": times(128, 1452), "small": times(128, 32), "long tail": {100, 100, 50, 100, 101, 1, 1, 2, 60000, 9, 9},
		"larger than a message": times(9, 9000), "the largest": {udpsock.MaxBytes, 1, udpsock.MaxBytes},
	} {
		var want [][]byte
		for i, n := range sizes {
			want = append(want, bytes.Repeat([]byte{byte(i)}, n))
		}
		a.send(want, to)
		got, from := b.take(len(want))
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("%s: datagram %d has %d bytes, want %d", name, i, len(got[i]), len(want[i]))
			}
		}
		if from.DstIP() != netip.MustParseAddr("127.0.0.1") || from.addr.Port() != a.port || from.SrcIP() != netip.MustParseAddr("127.0.0.2") {
			t.Errorf("%s: from %s to %s", name, from.DstToString(), from.SrcToString())
		}
		if first == nil {
			first = from
		}
		if from != first {
			t.Errorf("%s: the same sender has another endpoint", name)
		}
	}
	// A datagram leaves from the address that the last one went to, until ClearSrc.
	for _, want := range []string{"127.0.0.2", "127.0.0.1"} {
		b.send([][]byte{{1}}, first)
		if _, from := a.take(1); from.DstIP() != netip.MustParseAddr(want) {
			t.Errorf("answer from %v, want %s", from.DstIP(), want)
		}
		first.ClearSrc()
	}
	a.send([][]byte{{1}}, to)
	if _, from := b.take(1); from == first || !from.SrcIP().IsValid() {
		t.Error("the source address is not set again after ClearSrc")
	}
	// A sender that asks at another address is answered from that one.
	other := netip.MustParseAddr("127.0.0.3")
	a.send([][]byte{{1}}, a.endpoint(netip.AddrPortFrom(other, b.port).String()))
	if _, from := b.take(1); from.SrcIP() != other {
		t.Errorf("asked at %v, it answers from %v", other, from.SrcIP())
	}
}

func times(count, n int) (all []int) {
	for range count {
		all = append(all, n)
	}
	return all
}

// A local address that this host has lost stops nothing.
func TestBindSurvivesLossOfAddress(t *testing.T) {
	a, b := newEnd(t), newEnd(t)
	stale := newEndpoint(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.port), netip.MustParseAddr("192.0.2.1"))
	for range 2 {
		a.send([][]byte{{1}, {2}, {3}}, stale)
		if got, _ := b.take(3); len(got) != 3 {
			t.Errorf("%d datagrams", len(got))
		}
	}
	if stale.SrcIP().IsValid() {
		t.Error("the source address is not cleared")
	}
}

func TestBindClosesAndOpensAgain(t *testing.T) {
	a, b := newEnd(t), newEnd(t)
	if _, _, err := a.Open(0); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Errorf("second open: %v", err)
	}
	ended := make(chan error, 1)
	receive := a.receive
	go func() {
		_, err := receive(a.bufs, a.sizes, a.eps)
		ended <- err
	}()
	to := b.endpoint(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.port).String())
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("receive after close: %v", err)
	}
	if err := a.Send([][]byte{{1}}, to); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send after close: %v", err)
	}
	a.open()
	a.send([][]byte{{1}}, to)
	b.take(1)
}

func TestBindRefusesEndpoints(t *testing.T) {
	b := newEnd(t)
	for _, text := range []string{"", "192.0.2.1", "[2001:db8::1]:1", "name:1"} {
		if ep, err := b.ParseEndpoint(text); err == nil {
			t.Errorf("%q is endpoint %v", text, ep)
		}
	}
	if err := b.Send([][]byte{{1}}, &conn.StdNetEndpoint{}); !errors.Is(err, conn.ErrWrongEndpointType) {
		t.Errorf("send to another bind's endpoint: %v", err)
	}
}

// Datagrams cost no memory.
func TestBindDoesNotAllocate(t *testing.T) {
	a, b := newEnd(t), newEnd(t)
	to := a.endpoint(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.port).String())
	bufs := [][]byte{make([]byte, 1000), make([]byte, 1000), make([]byte, 10)}
	sender := udpsock.NewSender(a.bind.socks[inet.IPv4].conn)
	n := testing.AllocsPerRun(100, func() {
		if err := send(sender, bufs, to.(*endpoint).dest.Load()); err != nil {
			t.Fatal(err)
		}
		for left := len(bufs); left > 0; {
			n, err := b.receive(b.bufs, b.sizes, b.eps)
			if err != nil {
				t.Fatal(err)
			}
			left -= n
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d datagrams", n, len(bufs))
	}
}
