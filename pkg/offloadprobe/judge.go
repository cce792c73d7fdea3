package offloadprobe

import (
	"context"
	"math"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"
)

const (
	// alarm is the probability at which chance no longer explains the losses of a
	// shape.
	alarm = 1e-5
	// allClear is the probability that a fault of every second probe would have let as many
	// of a shape arrive.
	allClear = 2e-2
	// enough passed probes show that a shape arrives.
	enough = 3
	// maxRounds bounds the rounds of a verdict. Six are enough unless the path loses
	// packets.
	maxRounds = 60
)

// diagnose returns the layer of a fault after two verdicts that agree. The luck of the
// control must not look like a fault of others. joined: this host's process sends
// packets of TCP that follow each other as one super-packet.
func diagnose(ctx context.Context, joined bool, probe func(shape) outcome) (l Layer, known bool) {
	first, known := judge(ctx, joined, probe)
	if !known || first == "" {
		return "", known
	}
	second, known := judge(ctx, joined, probe)
	return first, known && second == first // promise: fault-needs-two-verdicts
}

// judge sends all shapes by probe, in rounds, until the verdict is clear. A round
// counts if the control arrives before and after it: a pause of the path or of a host
// ends all shapes alike. known is false if the control does not arrive, or the verdict
// is not clear after maxRounds.
func judge(ctx context.Context, joined bool, probe func(shape) outcome) (l Layer, known bool) {
	var t tallies
	control := func() bool {
		arrived := probe(small) == passed
		t[small].add(arrived)
		return arrived
	}
	for range maxRounds {
		if !control() {
			if t[small].passed == 0 && t[small].sent >= 2*enough {
				break // the peer is silent
			}
			continue
		}
		results := sendRound(probe)
		if control() && ctx.Err() == nil { // promise: pause-is-no-fault
			t.addRound(results)
		}
		if ctx.Err() != nil {
			return "", false
		}
		if t.settled() {
			break
		}
	}
	l, known = t.verdict(joined)
	log.V(1).Infof("verdict on offloads layer=%q known=%t tallies=%v", l, known, t)
	return l, known
}

// sendRound sends all shapes but the control, side by side, and returns their outcomes.
func sendRound(probe func(shape) outcome) (results [udpCheck]outcome) {
	var g errgroup.Group
	for s := small + 1; s < udpCheck; s++ {
		g.Go(func() error {
			results[s] = probe(s)
			return nil
		})
	}
	_ = g.Wait() // probes have no error
	return results
}

// tally counts the probes of a shape.
type tally struct{ sent, passed int }

func (t *tally) add(passed bool) {
	t.sent++
	if passed {
		t.passed++
	}
}

// share estimates the share of probes that arrive. The estimate is Laplace's: without a loss
// in n probes it is not 1. A control is one packet and its receipt, as is each packet of a
// shape.
func (t tally) share() float64 { return float64(t.passed+1) / float64(t.sent+2) }

// tallies are those of one diagnosis, by shape.
type tallies [shapes]tally

func (t *tallies) addRound(results [udpCheck]outcome) {
	for s := small + 1; s < udpCheck; s++ {
		if r := results[s]; r == passed || r == lost {
			t[s].add(r == passed)
		}
	}
	if r := results[tcpSmall]; r != unreachable {
		t[tcpConnect].add(r != unanswered)
	}
}

// expected is the share of probes of a shape that arrive if it loses what plain packets
// lose at random. A full queue has more room for small packets than for full ones.
func (t *tallies) expected(s shape) float64 {
	control := t[small]
	if forms[s].tcp && s != tcpSmall { // a connection needs more packets
		control.sent += t[tcpSmall].sent
		control.passed += t[tcpSmall].passed
	}
	one := control.share()
	if forms[s].full && s != full && 0 < t[full].passed && t[full].passed < t[full].sent { // promise: congestion-is-no-fault
		one = min(one, t[full].share())
	}
	return math.Pow(one, float64(forms[s].packets))
}

// bad reports whether the shape loses more than small packets do at random.
func (t *tallies) bad(s shape) bool {
	return atMost(t[s].passed, t[s].sent, t.expected(s)) < alarm
}

// good reports whether the shape arrives, and no fault loses every second one.
func (t *tallies) good(s shape) bool {
	lost := t[s].sent - t[s].passed
	return t[s].passed >= enough && !t.bad(s) && atMost(lost, t[s].sent, 1-t.expected(s)/2) < allClear // promise: half-a-fault-is-named
}

// settled reports whether more rounds would not change the verdict. The shapes of TCP
// need connections, and a control that arrives. A SYN needs a right that this process
// may not have.
func (t *tallies) settled() bool {
	noTCP := t[tcpSmall].sent == 0 || t.bad(tcpSmall)
	for s := range shapes {
		if noTCP && forms[s].tcp || s >= tcpSYN && t[s].sent == 0 {
			continue
		}
		if !t.bad(s) && !t.good(s) {
			return false
		}
	}
	return true
}

// verdict returns the layer of the fault. known is false if the control does not
// arrive, or more rounds are needed.
func (t *tallies) verdict(joined bool) (l Layer, known bool) {
	if !t.good(small) || !t.settled() {
		return "", false
	}
	tcp := t.good(tcpSmall)
	udpSuper, tcpSuper := t.bad(segments), tcp && t.bad(tcpSegments)
	switch {
	case t.bad(smallECN):
		return ECN, true
	case t.bad(smallChecksum):
		return Checksum, true
	case t.good(tcpSYN) && t.bad(tcpConnect): // promise: checksum-of-tcp-alone
		return Checksum, true
	case t.bad(full):
		return PathMTU, t[full].passed+t[fullChecksum].passed == 0 // promise: mtu-has-no-exception
	case t.bad(fullChecksum):
		return Checksum, true
	case tcp && t.bad(tcpFull): // the path takes datagrams of this size
		return Checksum, true
	case udpSuper && tcpSuper: // a process that encapsulates may send a train as a super-packet
		return Segmentation, true
	case t.good(mergedSmall) && t.bad(merged) && !udpSuper, tcpSuper && t.bad(tcpTrain) && !joined:
		return ReceiveMerging, true
	case udpSuper:
		return UDPSegmentation, true
	case tcpSuper:
		return TCPSegmentation, true
	}
	return "", true
}

// atMost is the probability of at most k successes in n trials of probability p.
func atMost(k, n int, p float64) float64 {
	sum := 0.0
	for i := range min(k, n) + 1 {
		lchoose, _ := math.Lgamma(float64(n + 1))
		a, _ := math.Lgamma(float64(i + 1))
		b, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(lchoose - a - b + float64(i)*math.Log(p) + float64(n-i)*math.Log(1-p))
	}
	return sum
}
