package udpsock

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// An answer leaves from the address that the question was sent to, as one datagram
// and as several.
func TestAnswerComesFromWhereTheQuestionWentTo(t *testing.T) {
	asker := listen1(t, Config{Local: netip.MustParseAddrPort("127.0.0.1:0"), PacketInfo: true})
	answerer := listen1(t, Config{Local: netip.MustParseAddrPort("0.0.0.0:0"), PacketInfo: true})
	for _, count := range []int{1, 5} {
		question, answer := NewSender(asker), NewSender(answerer)
		in, back := NewReceiver(answerer, 8), NewReceiver(asker, 8)
		to := NewDest([4]byte{127, 0, 0, 2}, answerer.LocalAddr().Port())
		if _, ok := question.Add(to, [][]byte{{1}}, 1, 1); !ok {
			t.Fatal("no room")
		}
		send(t, question)
		if n, err := in.Receive(); n != 1 || err != nil {
			t.Fatalf("%d messages, %v", n, err)
		}
		m := in.Message(0)
		if m.From != 0x7f000001 || m.FromPort != asker.LocalAddr().Port() || m.To != 0x7f000002 {
			t.Errorf("from %#x:%d to %#x", m.From, m.FromPort, m.To)
		}
		home := NewDest([4]byte{127, 0, 0, 1}, m.FromPort).From([4]byte{127, 0, 0, 2})
		if _, ok := answer.Add(home, train('a', 100, count, 0), 100, count); !ok {
			t.Fatal("no room")
		}
		for _, r := range send(t, answer) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		for got := 0; got < count; {
			n, err := back.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				m := back.Message(i)
				if m.From != 0x7f000002 || m.FromPort != answerer.LocalAddr().Port() || m.To != 0x7f000001 {
					t.Errorf("answer from %#x:%d to %#x", m.From, m.FromPort, m.To)
				}
				got += len(m.Data) / 100
			}
		}
	}
}

func TestAnotherHostsSourceIsRefused(t *testing.T) {
	in, out := listen1(t, Config{}), listen1(t, Config{})
	s := NewSender(out)
	foreign := dest(t, in.LocalAddr()).From([4]byte{192, 0, 2, 1})
	for _, count := range []int{1, 3} {
		s.Add(foreign, train('x', 10, count, 0), 10, count)
		if res := send(t, s); !errors.Is(res[0].Err, unix.ENETUNREACH) {
			t.Errorf("%d datagrams: %v, want ENETUNREACH", count, res[0].Err)
		}
	}
	if err := out.Features().Segment; errors.Is(err, ErrRefused) {
		t.Errorf("the source turned UDP_SEGMENT off: %v", err)
	}
}

// With Fragment, datagrams above the path's MTU arrive, and smaller ones still go in
// batches.
func TestFragment(t *testing.T) {
	h := smallLoopback(t)
	var c *Conn
	if err := h.Do(func() (err error) { c, err = Open(Config{Local: loopback, Fragment: true}); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, r, to := NewSender(c), NewReceiver(c, 8), dest(t, c.LocalAddr())
	for _, size := range []int{900, 1100, 900} {
		bufs := train('a', size, 3, 50)
		if _, ok := s.Add(to, bufs, size, 3); !ok {
			t.Fatal("no room")
		}
		for _, res := range send(t, s) {
			if res.Err != nil {
				t.Fatalf("%d bytes: %v", size, res.Err)
			}
		}
		for i, got := range datagrams(t, r, 3) {
			if want := slices.Concat(bufs[2*i], bufs[2*i+1]); !bytes.Equal(got, want) {
				t.Errorf("datagram %d has %d bytes, want %d", i, len(got), len(want))
			}
		}
	}
	if err := c.Features().Segment; errors.Is(err, ErrRefused) {
		t.Errorf("a datagram that was too large turned UDP_SEGMENT off: %v", err)
	}
}
