package offloadprobe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	fault "github.com/coreos/flannel/pkg/netnstest/packetfault"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// A path that loses packets has no fault.
func TestLossIsNoFault(t *testing.T) {
	t.Parallel()
	a, b := newSides(t, inside)
	fault.Plant(t, a.Host, uplink, fault.Randomly(10), fault.Drop())
	fault.Plant(t, b.Host, uplink, fault.Randomly(10), fault.Drop())
	a.noFault(t, b)
}

// A path that delays, reorders, duplicates or damages packets has no fault.
func TestNetemIsNoFault(t *testing.T) {
	for name, netem := range map[string]string{
		"reorder":   "delay 10ms reorder 25% 50%",
		"duplicate": "duplicate 20%",
		"delay":     "delay 250ms 20ms",
		"damage":    "corrupt 5%",
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newSides(t, inside)
			for _, s := range []*side{a, b} {
				args := append([]string{"qdisc", "add", "dev", uplink, "root", "netem"}, strings.Fields(netem)...)
				out, err := s.Command(t.Context(), "tc", args...).CombinedOutput()
				if strings.Contains(string(out), "qdisc kind is unknown") {
					netnstest.Netem.Missing(t, string(out))
					return
				}
				if err != nil {
					t.Fatalf("tc %v: %v\n%s", args, err, out)
				}
			}
			a.noFault(t, b)
		})
	}
}

// A path whose MTU is more than half of the largest packet has no fault: a super-packet of
// two full packets would be too long for IP.
func TestLargeMTUIsNoFault(t *testing.T) {
	for _, family := range inet.Families {
		t.Run(family.String(), func(t *testing.T) {
			t.Parallel()
			a, b := newSides(t, pathKind{family: family})
			for _, s := range []*side{a, b} {
				s.mtu = 65000
				s.SetMTU(uplink, s.mtu)
			}
			a.noFault(t, b)
		})
	}
}

// A responder reads each probe of TCP, whatever the size of its segments.
func TestTCPProbesAreReadable(t *testing.T) {
	for s, f := range forms {
		for _, mss := range []int{536, 1460, 8960, 22000, 65483} {
			total := 0
			for _, n := range f.writes(mss) {
				total += n
			}
			if f.tcp && total > maxTCP {
				t.Errorf("shape %d with segments of %d bytes has %d, want at most %d", s, mss, total, maxTCP)
			}
		}
	}
}

// noFault checks and diagnoses the path several times.
func (s *side) noFault(t *testing.T, to *side) {
	t.Helper()
	startBoth(t, s, to)
	known := s.peer(t, to)
	for range 2 {
		s.prober.Recheck(t.Context(), true)
		if l, _ := diagnose(t.Context(), false, func(shape shape) outcome { return s.prober.probe(t.Context(), known, shape) }); l != "" {
			t.Errorf("a diagnosis finds %s", l)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.changes) != 0 {
		t.Errorf("faults on a path without one: %+v", s.changes)
	}
}

// The schedule finds a fault without a call of Recheck, and reports each change once.
func TestSchedule(t *testing.T) {
	t.Parallel()
	want := layerHere(t, Segmentation)
	a, b := newSides(t, inside)
	a.start(t, b, time.Second)
	b.start(t, a, time.Second)
	result := func(s, of *side) Result { return s.prober.Results()[of.subnet] }
	until(t, "healthy", func() bool { return result(a, b).Known && result(b, a).Known })
	planted := fault.Plant(t, b.Host, uplink, fault.SuperPacket(), fault.Drop())
	until(t, "found", func() bool { return result(a, b).Tx.Layer == want && result(b, a).Rx.Layer == want })
	planted.Remove()
	until(t, "gone", func() bool { return result(a, b).Tx.Layer == "" && result(b, a).Rx.Layer == "" })
	until(t, "reported", func() bool { // after the result
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.changes) >= 2
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.changes) != 2 || a.changes[0] != (Change{b.subnet, false, "", want}) || a.changes[1] != (Change{b.subnet, false, want, ""}) {
		t.Errorf("changes %+v", a.changes)
	}
}

// A peer without a responder, and one that is away, have no fault and no result.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	a, b := newSides(t, inside)
	a.start(t, b, time.Hour)
	a.peer(t, b)
	a.prober.Recheck(t.Context(), true)
	b.Down(tunnel)
	a.prober.Recheck(t.Context(), true)
	if r := a.prober.Results()[b.subnet]; r != (Result{}) {
		t.Errorf("%+v", r)
	}
}

// A peer that starts later is diagnosed at once: its silence was no diagnosis.
func TestFaultOfALatePeer(t *testing.T) {
	t.Parallel()
	want := layerHere(t, Segmentation)
	a, b := newSides(t, inside)
	fault.Plant(t, b.Host, uplink, fault.SuperPacket(), fault.Drop())
	a.start(t, b, time.Minute)
	to := a.peer(t, b)
	examine := func() {
		to.visiting.Lock()
		defer to.visiting.Unlock()
		a.prober.examine(t.Context(), to, udpCheck)
	}
	examine()
	b.start(t, a, time.Hour)
	until(t, "found", func() bool {
		examine()
		return a.prober.Results()[b.subnet].Tx.Layer == want
	})
}

// A socket that cannot be read ends Run.
func TestBrokenSocket(t *testing.T) {
	a, _ := newSides(t, bare)
	p := New(Config{Locals: []netip.AddrPort{netip.AddrPortFrom(a.addr, port)}, Interval: time.Hour, Peers: func() []Peer { return nil }})
	r := &responder{fault: p.faultOf, within: p.within}
	if err := a.Do(func() error { return r.open(t.Context(), p.config.Locals) }); err != nil {
		t.Fatal(err)
	}
	if err := r.sockets[0].conn.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.runWith(ctx, r); !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("the error is %v; ctx: %v", err, ctx.Err())
	}
}

// The responder answers the addresses of peers only, and whole probes only.
func TestStrangersGetNoAnswer(t *testing.T) {
	a, b := newSides(t, bare)
	startBoth(t, a, b)
	stranger := netip.MustParsePrefix("192.0.2.9/24")
	b.AddAddr(uplink, stranger)
	whole := header{kind: kindProbe, token: 7}.message(smallLen)
	damaged := header{kind: kindProbe, token: 7}.message(smallLen)
	damaged[smallLen-1]++
	cut := header{kind: kindProbe, token: 7, length: smallLen + 1}.message(smallLen)
	for _, tt := range []struct {
		name    string
		from    netip.Addr
		message []byte
		answer  bool
	}{{"peer", b.addr, whole, true}, {"stranger", stranger.Addr(), whole, false}, {"damaged", b.addr, damaged, false}, {"cut", b.addr, cut, false},
		{"receipt", b.addr, header{kind: kindReceipt, token: 7}.message(smallLen), false}, {"short", b.addr, whole[:headerLen-1], false}} {
		c, err := b.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(tt.from, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.addr, port))
		// The answer to the second message is after that to the first.
		second := header{kind: kindProbe, token: 8}.message(smallLen)
		for _, m := range [][]byte{tt.message, second} {
			if _, err := c.WriteTo(m, to); err != nil {
				t.Fatal(err)
			}
		}
		var h header
		buffer := make([]byte, 100)
		limit := patience
		if tt.from != b.addr {
			limit = time.Second // nothing comes
		}
		if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFrom(buffer)
		if err == nil {
			err = h.parse(buffer[:n])
		}
		if answered := err == nil && h.token == 7; answered != tt.answer {
			t.Errorf("%s: answered %t (%v), want %t", tt.name, answered, err, tt.answer)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The responder closes a stranger's connection without an answer.
func TestStrangersConnection(t *testing.T) {
	a, b := newSides(t, bare)
	startBoth(t, a, b)
	stranger := netip.MustParsePrefix("192.0.2.9/24")
	b.AddAddr(uplink, stranger)
	for from, want := range map[netip.Addr]bool{b.addr: true, stranger.Addr(): false} {
		var c net.Conn
		err := b.Do(func() (err error) {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
			c, err = d.DialContext(t.Context(), "tcp4", netip.AddrPortFrom(a.addr, port).String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(connectionLimit / 2)); err != nil {
			t.Fatal(err)
		}
		_, err = c.Write(header{kind: kindProbe, shape: tcpSmall, token: 7, length: smallLen}.message(smallLen))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, headerLen))
		}
		if answered := err == nil; answered != want || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("from %v: answered %t (%v), want %t", from, answered, err, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A peer of a family in which this host does not answer is not probed.
func TestPeersOfOneFamily(t *testing.T) {
	v4 := Peer{netip.MustParsePrefix("10.5.2.0/24"), netip.MustParseAddrPort("10.5.2.0:8287")}
	v6 := Peer{netip.MustParsePrefix("fd00:5:0:2::/64"), netip.MustParseAddrPort("[fd00:5:0:2::]:8287")}
	for local, want := range map[string]Peer{"10.5.1.0:8287": v4, "[fd00:5:0:1::]:8287": v6} {
		p := New(Config{Locals: []netip.AddrPort{netip.MustParseAddrPort(local)}, Peers: func() []Peer { return []Peer{v4, v6} }})
		if known := p.refresh(); len(known) != 1 || known[0].subnet != want.Subnet {
			t.Errorf("from %s: %d peers, want %v", local, len(known), want.Subnet)
		}
	}
}

// The checks of a peer cost what the budget assumes.
func TestCostOfChecks(t *testing.T) {
	for _, family := range inet.Families {
		t.Run(family.String(), func(t *testing.T) {
			path := pathKind{family, true}
			a, b := newSides(t, path)
			startBoth(t, a, b)
			budget := cost(family, a.mtu)
			if netnstest.LacksSoftwareTrains(t) {
				const udp = 8
				budget += int(path.header().Offset+path.header().Len()) + udp // of a second frame
			}
			sent := func() int {
				link, err := a.Netlink().LinkByName(uplink)
				if err != nil {
					t.Fatal(err)
				}
				return int(link.Attrs().Statistics.TxBytes)
			}
			least := 1 << 30
			for range 5 { // neighbour discovery may come between
				before := sent()
				a.prober.Recheck(t.Context(), true)
				b.prober.Recheck(t.Context(), true)
				least = min(least, sent()-before)
			}
			t.Logf("%d bytes", least)
			if least > budget || least < budget*9/10 {
				t.Errorf("%d bytes for the checks of a peer and the receipts, want at most %d", least, budget)
			}
		})
	}
}
