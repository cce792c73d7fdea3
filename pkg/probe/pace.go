package probe

import "time"

const (
	// apart is the least time between two small probes, on average. With 1,000 peers a round
	// takes 30 s. A small probe is 36 bytes and at most 80 of encapsulation, so
	// that probes and the answers to those of others stay below 7.8 kB/s.
	apart = 30 * time.Millisecond
	// apartMost is what that time grows to, from crowd peers on in proportion to
	// their number. Each probe takes 70 µs of a processor here and half of that at
	// the peer; 33 a second, for ever, are 0.2 % of one.
	apartMost = 100 * time.Millisecond
	crowd     = 1000
	// apartLarge is the least time between two large probes, of 1,500 bytes on
	// an ordinary wire, where there are many peers; with few, each is due only
	// every largeEvery. Twice for the answers, and all is below 10 kB/s where
	// peers do as we do.
	apartLarge = 2 * time.Second
	// largeEvery is how often the largest packet to a peer is measured again.
	largeEvery = time.Minute
	// timeout is when a probe without an answer is lost.
	timeout = time.Second
	// window is how many of the last probes the loss is taken over; a peer is
	// silent when the last silentAfter of them are lost.
	window      = 20
	silentAfter = 3
	// collectMost bounds how many messages are taken at once; more than a socket's
	// buffer holds.
	collectMost = 4096
)

// burstEvery is the least time between two bursts of small probes, unless peers
// shall be probed more often; about 66 of them, of 36 bytes, are in the largest,
// whose answers fit a socket's buffer many times. To wake up for each probe, and
// for each answer, costs more processor time than all the rest.
const burstEvery = 2 * time.Second

// pace is how many of n peers are probed at once, and how long the pause is
// before the next ones.
func pace(interval time.Duration, n int) (burst int, pause time.Duration) {
	n = max(1, n)
	all := round(interval, n)
	bursts := min(n, int((all+burstEvery-1)/burstEvery))
	burst = (n + bursts - 1) / bursts
	bursts = (n + burst - 1) / burst // as many as it takes, with what was rounded up
	return burst, all / time.Duration(bursts)
}

// round is how long it takes to probe each of n peers once.
func round(interval time.Duration, n int) time.Duration {
	each := min(max(apart, apart*time.Duration(n)/crowd), apartMost)
	return max(interval, time.Duration(n)*each)
}
