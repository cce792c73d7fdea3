package udpsock

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// An answer leaves from the address that the question was sent to, as one datagram
// and as several.
func TestAnswerComesFromWhereTheQuestionWentTo(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	for _, test := range []struct{ asker, answerer, unspecified string }{
		{"127.0.0.1", "127.0.0.2", "0.0.0.0"}, {"fd00::1", "fd00::2", "::"},
	} {
		asker, answerer := netip.MustParseAddr(test.asker), netip.MustParseAddr(test.answerer)
		if asker.Is6() {
			for _, a := range []netip.Addr{asker, answerer} {
				h.AddAddr("lo", netip.PrefixFrom(a, 128))
				// The kernel adds the address's route later (addrconf_dad_work,
				// net/ipv6/addrconf.c).
				netnstest.Eventually(t, "the address is local", func() error {
					routes, err := h.Netlink().RouteGet(a.AsSlice())
					if err == nil && routes[0].Type != unix.RTN_LOCAL {
						err = fmt.Errorf("route %v", routes[0])
					}
					return err
				})
			}
		}
		t.Run(inet.Of(asker).String(), func(t *testing.T) {
			listen := func(a netip.Addr) (c *Conn) {
				err := h.Do(func() (err error) {
					c, err = Open(Config{Local: netip.AddrPortFrom(a, 0), PacketInfo: true})
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			answerComesFrom(t, listen(asker), listen(netip.MustParseAddr(test.unspecified)), answerer)
		})
	}
}

func answerComesFrom(t *testing.T, asker, answerer *Conn, from netip.Addr) {
	own, port := asker.LocalAddr(), answerer.LocalAddr().Port()
	for _, count := range []int{1, 5} {
		question, answer := NewSender(asker), NewSender(answerer)
		in, back := NewReceiver(answerer, 8), NewReceiver(asker, 8)
		to := NewDest(netip.AddrPortFrom(from, port))
		if _, ok := question.Add(to, [][]byte{{1}}, 1, 1); !ok {
			t.Fatal("no room")
		}
		if r := send(t, question)[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
		if n, err := in.Receive(); n != 1 || err != nil {
			t.Fatalf("%d messages, %v", n, err)
		}
		m := in.Message(0)
		if netip.AddrPortFrom(m.From.Addr(), m.FromPort) != own || m.To.Addr() != from || m.Interface == 0 {
			t.Errorf("from %v port %d to %v by interface %d", m.From.Addr(), m.FromPort, m.To.Addr(), m.Interface)
		}
		home := NewDest(own).From(from)
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
				if m.From.Addr() != from || m.FromPort != port || m.To.Addr() != own.Addr() {
					t.Errorf("answer from %v port %d to %v", m.From.Addr(), m.FromPort, m.To.Addr())
				}
				got += len(m.Data) / 100
			}
		}
	}
}

func TestAnotherHostsSourceIsRefused(t *testing.T) {
	in, out := listen1(t, Config{}), listen1(t, Config{})
	s := NewSender(out)
	foreign := dest(t, in.LocalAddr()).From(netip.MustParseAddr("192.0.2.1"))
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
