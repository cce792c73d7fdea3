package probe

import (
	"net/netip"
	"time"
)

// Result is what is known of the way to one peer.
type Result struct {
	// RTT is the round trip of the last probe that was answered, 0 if none was.
	RTT time.Duration
	// Sent counts the probes that the others are about: at most the last 20.
	// Lost is how many of them had no answer within a second.
	Sent, Lost int
	// MTU is the largest packet in bytes that has come through, IP header
	// included; 0 while it is not known.
	MTU int
	// Silent is true while the last three probes had no answer; Since is when
	// that, or the opposite, began. It is zero before it is known.
	Silent bool
	Since  time.Time
}

// Loss is the share of probes without an answer, 0 to 1.
func (r Result) Loss() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Lost) / float64(r.Sent)
}

// peer is what the prober remembers of one peer.
type peer struct {
	subnet netip.Prefix
	// second is set while the subnet's second address is probed, for peers whose
	// first does not answer: host-gw has no device, and where a bridge came up
	// before the device, older kernels take the first for its broadcast address.
	second bool
	// lost has a bit for each of the last sent probes, the latest lowest.
	lost uint32
	sent int
	// inRow counts the last probes that were lost one after the other.
	inRow int

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
	p.inRow = 0
	p.result.RTT = rtt
	if p.result.Silent || p.result.Since.IsZero() {
		p.result.Silent, p.result.Since = false, now
	}
}

func (p *peer) missed(now time.Time) {
	p.count(1)
	p.inRow++
	// A peer that answered once is asked at the same address for a while.
	if p.result.RTT == 0 || p.inRow > silentAfter {
		p.second = !p.second && p.subnet.Bits() < 32
	}
	if p.inRow >= silentAfter && !p.result.Silent {
		p.result.Silent, p.result.Since = true, now
	}
}

func (p *peer) count(bit uint32) {
	p.lost = (p.lost<<1 | bit) & (1<<window - 1)
	p.sent = min(p.sent+1, window)
}
