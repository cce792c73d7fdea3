package offloadprobe

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/inet"
)

// path is a simulated path: it loses packets at random, and the shapes of a fault.
type path struct {
	loss  float64
	fault []shape
	share float64 // of the probes that the fault loses; 0 is all
	full  float64 // the probability that a full queue has no room for a full packet
	noTCP bool    // there is no connection
	syn   bool    // a SYN with a computed checksum passes even so
	// stall is the probability that nothing passes from one control to the next.
	stall float64

	mu      sync.Mutex
	random  [shapes]*rand.Rand // one for each shape, as they are sent side by side
	stalled bool
}

func (p *path) seed(seed uint64) *path {
	for s := range p.random {
		p.random[s] = rand.New(rand.NewPCG(seed, uint64(s)))
	}
	return p
}

func (p *path) probe(s shape) outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, random := forms[s], p.random[s]
	stalled := p.stalled
	if s == small {
		p.stalled = !stalled && random.Float64() < p.stall
	}
	if f.tcp && p.noTCP {
		return unanswered
	}
	if f.syn && p.noTCP && !p.syn {
		return lost
	}
	if stalled || slices.Contains(p.fault, s) && (p.share == 0 || random.Float64() < p.share) {
		return lost
	}
	for range f.packets {
		if f.full && random.Float64() < p.full {
			return lost
		}
	}
	for range 2 * f.packets { // each packet has a receipt
		if random.Float64() < p.loss {
			return lost
		}
	}
	return passed
}

// lossOf returns the shapes that a fault of each layer loses.
var lossOf = map[Layer][]shape{
	Checksum:        {smallChecksum, fullChecksum, segments, merged, tcpSmall, tcpFull, tcpTrain, tcpSegments},
	Segmentation:    {segments, merged, tcpSegments},
	TCPSegmentation: {tcpSegments},
	UDPSegmentation: {segments, merged},
	ReceiveMerging:  {merged, tcpTrain, tcpSegments},
	PathMTU:         {full, fullChecksum, segments, merged, tcpFull, tcpTrain, tcpSegments},
	ECN:             {smallECN},
}

// A path that loses one packet in ten may need a second diagnosis. No name is wrong.
func TestDiagnosisNamesTheLayer(t *testing.T) {
	const seeds = 50
	for layer, shapes := range lossOf {
		for _, loss := range []float64{0, 0.02, 0.1} {
			unknown := 0
			for seed := range uint64(seeds) {
				p := (&path{loss: loss, fault: shapes}).seed(seed)
				switch got, known := diagnose(t.Context(), false, p.probe); {
				case !known:
					unknown++
				case got != layer:
					t.Errorf("%s with loss %.2f, seed %d: %q", layer, loss, seed, got)
				}
			}
			if unknown > 0 && loss < 0.1 || unknown > seeds/10 {
				t.Errorf("%s with loss %.2f: %d of %d diagnoses have no result", layer, loss, unknown, seeds)
			}
		}
	}
}

// Large packets alone are lost where a device computes only their checksums wrongly, of
// UDP and TCP or of TCP alone.
func TestDiagnosisOfLargeChecksums(t *testing.T) {
	for _, lost := range [][]shape{
		{fullChecksum, segments, merged, tcpFull, tcpTrain, tcpSegments},
		{tcpFull, tcpTrain, tcpSegments},
	} {
		p := (&path{fault: lost}).seed(1)
		if got, known := diagnose(t.Context(), false, p.probe); !known || got != Checksum {
			t.Errorf("%v: %q, known %t", lost, got, known)
		}
	}
}

// A fault that hits every second packet has its name or none.
func TestDiagnosisOfHalfAFault(t *testing.T) {
	const seeds = 50
	for layer, shapes := range lossOf {
		if layer == PathMTU {
			continue // a queue may lose every second full packet
		}
		missed := 0
		for seed := range uint64(seeds) {
			p := (&path{fault: shapes, share: 0.5}).seed(seed)
			switch got, known := diagnose(t.Context(), false, p.probe); {
			case !known || got == "":
				missed++
			case got != layer:
				t.Errorf("%s, seed %d: %q", layer, seed, got)
			}
		}
		if missed > seeds/5 {
			t.Errorf("%s: %d of %d diagnoses have no result", layer, missed, seeds)
		}
	}
}

// A path that loses any packets, or stalls, has no fault.
func TestDiagnosisWithoutFault(t *testing.T) {
	for _, loss := range []float64{0, 0.01, 0.1, 0.2, 0.3} {
		for _, stall := range []float64{0, 0.3, 0.9} {
			for seed := range uint64(200) {
				p := (&path{loss: loss, stall: stall}).seed(seed)
				if got, known := diagnose(t.Context(), false, p.probe); known && got != "" {
					t.Errorf("loss %.2f, stalls %.1f, seed %d: %q", loss, stall, seed, got)
				}
			}
		}
	}
}

// A queue that is always full has more room for small packets. That is no fault.
func TestDiagnosisOfCongestion(t *testing.T) {
	for _, lost := range []float64{0.1, 0.3, 0.5, 0.7} {
		for seed := range uint64(200) {
			p := (&path{loss: 0.02, full: lost}).seed(seed)
			if got, known := diagnose(t.Context(), false, p.probe); known && got != "" {
				t.Errorf("%.1f of the full packets are lost, seed %d: %q", lost, seed, got)
			}
		}
	}
}

// Losses that do not come again are no fault.
func TestDiagnosisOfLossesOnce(t *testing.T) {
	var mu sync.Mutex
	left := 6
	probe := func(s shape) outcome {
		mu.Lock()
		defer mu.Unlock()
		if s == smallECN && left > 0 {
			left--
			return lost
		}
		return passed
	}
	if first, known := judge(t.Context(), false, probe); !known || first != ECN {
		t.Fatalf("the first verdict is %q, known %t", first, known)
	}
	left = 6
	if got, known := diagnose(t.Context(), false, probe); known {
		t.Errorf("two verdicts that differ are %q", got)
	}
}

// A firewall that lets no connection pass hides the faults of TCP, and no others. One
// that drops the datagrams for the merging socket is no fault.
func TestDiagnosisBehindAFirewall(t *testing.T) {
	for name, tt := range map[string]struct {
		path  *path
		layer Layer
		known bool
	}{
		"without TCP":                 {&path{noTCP: true}, "", true},
		"checksum of TCP":             {&path{noTCP: true, syn: true}, Checksum, true},
		"checksum without TCP":        {&path{noTCP: true, fault: lossOf[Checksum]}, Checksum, true},
		"segmentation without TCP":    {&path{noTCP: true, fault: lossOf[Segmentation]}, UDPSegmentation, true},
		"without the port of merging": {&path{fault: []shape{merged, mergedSmall}}, "", true},
		"without any port":            {&path{noTCP: true, loss: 1}, "", false},
	} {
		if got, known := diagnose(t.Context(), false, tt.path.seed(1).probe); got != tt.layer || known != tt.known {
			t.Errorf("%s: %q, known %t; want %q, %t", name, got, known, tt.layer, tt.known)
		}
	}
}

// A process that encapsulates packets may join a train of TCP, which is then lost as
// super-packets are. Before Linux 6.2, datagrams come to it one by one.
func TestDiagnosisOfJoinedTrains(t *testing.T) {
	for joined, want := range map[bool]Layer{false: ReceiveMerging, true: TCPSegmentation} {
		p := (&path{fault: []shape{tcpTrain, tcpSegments}}).seed(1)
		if got, known := diagnose(t.Context(), joined, p.probe); !known || got != want {
			t.Errorf("joined %t: %q, known %t, want %q", joined, got, known, want)
		}
	}
	p := (&path{fault: lossOf[ReceiveMerging]}).seed(1)
	if got, known := diagnose(t.Context(), true, p.probe); !known || got != ReceiveMerging {
		t.Errorf("datagrams that the receiver merges are lost: %q, known %t", got, known)
	}
}

func TestAtMost(t *testing.T) {
	for _, tt := range []struct {
		k, n    int
		p, want float64
	}{{0, 0, 0.5, 1}, {0, 4, 0.5, 1.0 / 16}, {1, 4, 0.5, 5.0 / 16}, {4, 4, 0.9, 1}, {0, 8, 0.81, math.Pow(0.19, 8)}} {
		if got := atMost(tt.k, tt.n, tt.p); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("at most %d of %d with %.2f: %g, want %g", tt.k, tt.n, tt.p, got, tt.want)
		}
	}
}

// The rate of a peer does not grow with its MTU, and that of a host not with more than
// hostPeers.
func TestBudget(t *testing.T) {
	const interval = 24 * time.Second
	for _, family := range inet.Families {
		for _, tt := range []struct{ n, mtu int }{{1, 1450}, {1, 1472}, {100, 1450}, {1000, 1450}, {10_000, 1450}, {1, 8950}, {1000, 8950}} {
			t.Run(fmt.Sprintf("%v, %d peers, MTU %d", family, tt.n, tt.mtu), func(t *testing.T) {
				all := round(interval, tt.n, cost(family, tt.mtu))
				rate := float64(cost(family, tt.mtu)) / all.Seconds()
				if rate >= 125 || rate*float64(tt.n) >= 125*hostPeers {
					t.Errorf("%.1f bytes a second for a peer, %.0f for the host", rate, rate*float64(tt.n))
				}
				group, pause := pace(all, tt.n)
				took := time.Duration((2*tt.n+group-1)/group) * pause
				if pause < checkSpacing || took < all*99/100 || took > all+pause {
					t.Errorf("groups of %d every %v take %v, want %v", group, pause, took, all)
				}
			})
		}
	}
}
