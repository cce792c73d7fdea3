package probe

import (
	"math/bits"
	"net/netip"
	"time"
)

// Result is the measured state of the path to one peer.
type Result struct {
	// RTT is the round trip of the last answered probe; 0 if none was answered.
	RTT time.Duration
	// Sent counts the last probes, 20 at most. Lost counts those of them without
	// an answer within a second.
	Sent, Lost int
	// MTU is the largest packet that passed, in bytes with the IP header; 0 until
	// it is known.
	MTU int
	// Silent is true if the last three probes had no answer. Since is the begin of
	// this state; zero before the first.
	Silent bool
	Since  time.Time
}

// Loss returns the share of lost probes, 0 to 1.
func (r Result) Loss() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Lost) / float64(r.Sent)
}

// peer is a Prober's state of one peer.
type peer struct {
	subnet netip.Prefix
	// second selects the subnet's second address, for peers whose first does not
	// answer. host-gw has no device with the first one. If a bridge came up before
	// the device, older kernels treat the first as the bridge's broadcast address.
	second bool
	// lost has a bit for each of the last probes, the latest lowest.
	lost   uint32
	result Result
	size   search
}

func newPeer(subnet netip.Prefix, mtu int) *peer {
	return &peer{subnet: subnet, size: search{full: mtu}}
}

func (p *peer) target() netip.Addr {
	if p.second {
		return p.subnet.Addr().Next()
	}
	return p.subnet.Addr()
}

func (p *peer) answered(now time.Time, rtt time.Duration) {
	p.count(0)
	p.result.RTT = rtt
	if p.result.Silent || p.result.Since.IsZero() {
		p.result.Silent, p.result.Since = false, now
	}
}

func (p *peer) missed(now time.Time) {
	p.count(1)
	// A peer that has answered keeps its address for a few more probes.
	if p.result.RTT == 0 || p.lostInRow() > silentAfter {
		p.second = !p.second && p.subnet.Bits() < 32
	}
	if p.lostInRow() >= silentAfter && !p.result.Silent {
		p.result.Silent, p.result.Since = true, now
	}
}

// lostInRow counts the latest probes that were lost without an answer between.
func (p *peer) lostInRow() int { return bits.TrailingZeros32(^p.lost) }

func (p *peer) count(bit uint32) {
	p.lost = (p.lost<<1 | bit) & (1<<window - 1)
	p.result.Sent = min(p.result.Sent+1, window)
	p.result.Lost = bits.OnesCount32(p.lost)
}
