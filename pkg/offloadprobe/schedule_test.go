package offloadprobe

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/inet"
)

// plan is a Prober's schedule with probes that are not sent. The path to the first peer
// loses the shapes of lost.
type plan struct {
	prober *Prober
	first  netip.Prefix
	lost   atomic.Pointer[[]shape]
	rtt    atomic.Int64 // of the path, if not 0
	all    atomic.Bool  // the paths to all peers lose the shapes
	checks atomic.Int64 // of all peers
	rounds atomic.Int64 // of diagnoses, of all peers
	// reaches is the size of the largest packet that pings have passed to the first peer.
	reaches atomic.Int64
	stop    func()
}

// startPlan runs the schedule for n peers with the default interval, in a bubble of
// synctest.
func startPlan(t *testing.T, family inet.Family, n int) *plan {
	t.Helper()
	peers := make([]Peer, n)
	for i := range peers {
		addr := hostOf(family, i+1)
		peers[i] = Peer{netip.PrefixFrom(addr, family.Bits()), netip.AddrPortFrom(addr, port)}
	}
	s := &plan{first: peers[0].Subnet}
	s.lost.Store(&[]shape{})
	s.prober = New(Config{
		Locals: []netip.AddrPort{netip.AddrPortFrom(hostOf(family, 0), port)}, MTU: 1450, Interval: 24 * time.Second,
		Peers: func() []Peer { return peers }, Reaches: func(netip.Prefix) int { return int(s.reaches.Load()) },
	})
	s.prober.probe = s.probe
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.prober.schedule(ctx) }()
	s.stop = func() { cancel(); <-ended }
	return s
}

// hostOf returns the address of a host by its number.
func hostOf(f inet.Family, i int) netip.Addr {
	if f == inet.IPv4 {
		return netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
	}
	return netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 8), 14: byte(i), 15: 1})
}

func (s *plan) probe(ctx context.Context, to *peer, sent shape) outcome {
	if sent == udpCheck || sent == tcpSegments {
		s.checks.Add(1)
	}
	if sent == smallECN {
		s.rounds.Add(1)
	}
	result, took := passed, time.Duration(cmp.Or(s.rtt.Load(), int64(time.Millisecond)))
	if wait := s.prober.wait(to); took > wait || (to.subnet == s.first || s.all.Load()) && slices.Contains(*s.lost.Load(), sent) {
		result, took = lost, wait
	}
	select {
	case <-time.After(took):
	case <-ctx.Done():
	}
	if result == passed {
		s.prober.noteRTT(to, took)
	}
	return result
}

// A fault that begins at any time is found within 30 seconds, among up to hostPeers
// peers.
func TestFaultsAreFoundInTime(t *testing.T) {
	for _, family := range inet.Families {
		for _, peers := range []int{1, hostPeers} {
			for layer := range lossOf {
				slowest := slowestFind(t, family, peers, layer)
				t.Logf("%s, %d peers of %v: found within %v", layer, peers, family, slowest)
				if slowest > 30*time.Second {
					t.Errorf("%s, %d peers of %v: found after %v", layer, peers, family, slowest)
				}
			}
		}
	}
}

// A fault that stays is not diagnosed again soon.
func TestFaultThatStays(t *testing.T) {
	for layer := range lossOf {
		synctest.Test(t, func(t *testing.T) {
			s := startPlan(t, inet.IPv4, 1)
			defer s.stop()
			lost := withCheck(layer)
			s.lost.Store(&lost)
			<-time.After(time.Minute)
			before := s.rounds.Load()
			<-time.After(2 * time.Minute)
			if r := s.prober.Results()[s.first]; r.Tx.Layer != layer || s.rounds.Load() != before {
				t.Errorf("%s: the fault is %q, %d rounds of diagnoses", layer, r.Tx.Layer, s.rounds.Load()-before)
			}
		})
	}
}

// A fault is found as soon if it comes after another one, after a diagnosis without a
// fault, or in place of another one.
func TestNextFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startPlan(t, inet.IPv4, 1)
		defer s.stop()
		has := func(after time.Duration, lost []shape, l Layer) {
			t.Helper()
			s.lost.Store(&lost)
			<-time.After(after)
			if r := s.prober.Results()[s.first]; r.Tx.Layer != l {
				t.Errorf("the fault is %q, want %q", r.Tx.Layer, l)
			}
		}
		<-time.After(time.Minute)
		has(30*time.Second, withCheck(Segmentation), Segmentation)
		has(time.Minute, nil, "")
		has(30*time.Second, withCheck(ECN), ECN)
		has(time.Minute, withCheck(Checksum), Checksum)
		has(time.Minute, lossOf[TCPSegmentation], TCPSegmentation)
		has(time.Minute, nil, "")
		has(20*time.Second, []shape{udpCheck}, "") // a diagnosis finds nothing
		has(time.Minute, withCheck(UDPSegmentation), UDPSegmentation)
	})
}

// A fault to all peers is known as such soon: most are diagnosed, or are suspects. In a
// few minutes all are diagnosed.
func TestFaultToAllPeers(t *testing.T) {
	for layer := range lossOf {
		synctest.Test(t, func(t *testing.T) {
			s := startPlan(t, inet.IPv4, hostPeers)
			defer s.stop()
			<-time.After(time.Minute)
			lost := withCheck(layer)
			s.lost.Store(&lost)
			s.all.Store(true)
			<-time.After(30 * time.Second)
			if faulty, healthy := s.count(layer); faulty < healthy || faulty == 0 {
				t.Errorf("%s: %d peers with the fault, %d without", layer, faulty, healthy)
			}
			<-time.After(210 * time.Second)
			if faulty, _ := s.count(layer); faulty != hostPeers {
				t.Errorf("%s: %d peers with the fault after four minutes", layer, faulty)
			}
		})
	}
}

// count returns the number of peers with a fault of a layer, and of those without any that
// are no suspects.
func (s *plan) count(layer Layer) (faulty, healthy int) {
	for _, r := range s.prober.Results() {
		switch {
		case r.Tx.Layer == layer:
			faulty++
		case r.Known && !r.Suspect:
			healthy++
		}
	}
	return faulty, healthy
}

// A check confirms a result if the peer answers. A silent peer keeps its result, which
// nothing confirms.
func TestConfirmedResults(t *testing.T) {
	for _, layer := range []Layer{"", Segmentation} {
		synctest.Test(t, func(t *testing.T) {
			s := startPlan(t, inet.IPv4, 1)
			defer s.stop()
			lost := withCheck(layer)
			s.lost.Store(&lost)
			confirmed := func(want bool) {
				t.Helper()
				<-time.After(time.Minute) // an earlier check ends
				began := time.Now()
				<-time.After(2 * time.Minute)
				if r := s.prober.Results()[s.first]; r.Tx.Layer != layer || r.TxAt.Before(began) == want {
					t.Errorf("%q: fault %q, confirmed at %v, %v after the begin", layer, r.Tx.Layer, r.TxAt, r.TxAt.Sub(began))
				}
			}
			confirmed(true)
			var all []shape
			for shape := range shapes {
				all = append(all, shape)
			}
			s.lost.Store(&all)
			confirmed(false)
			s.lost.Store(&lost)
			confirmed(true)
		})
	}
}

// A path may be slow, and become slower.
func TestSlowPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startPlan(t, inet.IPv4, 1)
		defer s.stop()
		<-time.After(time.Minute)
		for _, rtt := range []time.Duration{400 * time.Millisecond, 1900 * time.Millisecond} {
			s.rtt.Store(int64(rtt))
			for _, layer := range []Layer{Segmentation, ""} {
				lost := withCheck(layer)
				s.lost.Store(&lost)
				<-time.After(5 * time.Minute)
				if r := s.prober.Results()[s.first]; r.Tx.Layer != layer {
					t.Errorf("with a round trip of %v the fault is %q, want %q", rtt, r.Tx.Layer, layer)
				}
			}
		}
	})
}

// A path that loses single packets of the MTU, and passes super-packets, passes the
// checks. Pings that find it are a reason for a diagnosis.
func TestNarrowPathOfSinglePackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startPlan(t, inet.IPv4, 1)
		defer s.stop()
		has := func(after time.Duration, l Layer) {
			t.Helper()
			<-time.After(after)
			if r := s.prober.Results()[s.first]; r.Tx.Layer != l {
				t.Errorf("the fault is %q, want %q", r.Tx.Layer, l)
			}
		}
		s.lost.Store(&[]shape{full, fullChecksum, tcpFull, tcpTrain})
		has(5*time.Minute, "")
		s.reaches.Store(1350)
		has(30*time.Second, PathMTU)
		has(5*time.Minute, PathMTU)
		s.lost.Store(&[]shape{})
		s.reaches.Store(1450)
		has(time.Minute, "")
	})
}

// withCheck returns the shapes that a fault of a layer loses, with the check of UDP.
func withCheck(layer Layer) []shape {
	lost := slices.Clone(lossOf[layer])
	if layer != "" && layer != PathMTU && layer != TCPSegmentation {
		lost = append(lost, udpCheck)
	}
	return lost
}

// slowestFind returns the longest time in which a fault is found, of those that begin at
// some times of a round.
func slowestFind(t *testing.T, family inet.Family, peers int, layer Layer) (slowest time.Duration) {
	t.Helper()
	lost := withCheck(layer)
	const step = 1700 * time.Millisecond
	for phase := time.Minute; phase < time.Minute+26*time.Second; phase += step {
		synctest.Test(t, func(t *testing.T) {
			s := startPlan(t, family, peers)
			defer s.stop()
			<-time.After(phase)
			s.lost.Store(&lost)
			began := time.Now()
			for s.prober.Results()[s.first].Tx.Layer != layer {
				<-time.After(100 * time.Millisecond)
				if time.Since(began) > time.Hour {
					t.Fatalf("%s is not found", layer)
				}
			}
			slowest = max(slowest, time.Since(began))
		})
	}
	return slowest
}

// The rates that the budget allows are those of the schedule, for one peer and for the
// host.
func TestScheduleKeepsTheBudget(t *testing.T) {
	for _, family := range inet.Families {
		for _, peers := range []int{2, hostPeers, 300, 5000} {
			synctest.Test(t, func(t *testing.T) {
				s := startPlan(t, family, peers)
				defer s.stop()
				<-time.After(time.Minute)
				s.checks.Store(0)
				const while = time.Hour
				<-time.After(while)
				bytes := float64(s.checks.Load()) / 2 * float64(s.prober.config.cost())
				rate := bytes / while.Seconds() / float64(min(peers, hostPeers))
				t.Logf("%d peers of %v: %.1f bytes a second", peers, family, rate)
				if rate >= 125 || rate < 100 {
					t.Errorf("%d peers of %v: %.1f bytes a second for each of at most %d, want less than 125", peers, family, rate, hostPeers)
				}
			})
		}
	}
}
