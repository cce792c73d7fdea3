package probe

import "time"

const (
	// minSpacing is the average time between two small probes of up to
	// spacingPeers peers; 1,000 peers take 30 s. A small probe has 36 bytes and at
	// most 80 of encapsulation. Probes and the answers to others' probes stay
	// below 7.8 kB/s.
	minSpacing = 30 * time.Millisecond
	// maxSpacing bounds that time, which grows with the number of peers from
	// spacingPeers on. A probe takes 70 µs of a processor here and half of that at
	// the peer; 33 a second are 0.2 % of one.
	maxSpacing   = 100 * time.Millisecond
	spacingPeers = 1000
	// largeSpacing is the minimum time between two large probes, of usually 1,500
	// bytes. With few peers largeEvery is the limit. All probes and answers
	// together stay below 10 kB/s.
	largeSpacing = 2 * time.Second
	// largeEvery is the interval after which a peer's MTU is measured again.
	largeEvery = time.Minute
	// timeout is the time after which a probe without an answer is lost.
	timeout = time.Second
	// window is the number of last probes that loss is computed over. A peer is
	// silent if the last silentAfter of them are lost.
	window      = 20
	silentAfter = 3
	// maxReplies bounds the messages of one collect. A socket's buffer holds fewer.
	maxReplies = 4096
)

// burstEvery is the minimum time between two bursts of small probes, unless
// Config.Interval is shorter. The largest burst has about 66 probes; its answers
// fit a socket's buffer many times. One wake-up for each probe and each answer
// would cost more processor time than all other work.
const burstEvery = 2 * time.Second

// pace returns how many of n peers are probed at once, and the pause before the
// next ones.
func pace(interval time.Duration, n int) (burst int, pause time.Duration) {
	n = max(1, n)
	all := round(interval, n)
	bursts := min(n, int((all+burstEvery-1)/burstEvery))
	burst = (n + bursts - 1) / bursts
	bursts = (n + burst - 1) / burst // burst was rounded up
	return burst, all / time.Duration(bursts)
}

// round returns the time in which each of n peers is probed once.
func round(interval time.Duration, n int) time.Duration {
	each := min(max(minSpacing, minSpacing*time.Duration(n)/spacingPeers), maxSpacing)
	return max(interval, time.Duration(n)*each)
}
