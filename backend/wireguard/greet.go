package wireguard

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/ratelog"
)

const (
	// greetPause is the time from a beginning to the look whether it has led to
	// a session, and up to twice that, at random; it doubles with each of
	// greetTries. If both sides begin at once, neither gets a session, and each
	// would wait for five seconds (REKEY_TIMEOUT, section 6.1 of the paper), and
	// where packets flow both ways, begin at once again. A beginning that comes
	// before the answer to the last one would end the session that this makes,
	// with the packets that are under way in it.
	greetPause = 500 * time.Millisecond
	greetTries = 3
	// greetBatch is how many peers are greeted at a time, every greetEvery. A
	// beginning costs both sides some 0.1 ms of processor time.
	greetBatch = 128
	greetEvery = 50 * time.Millisecond
	// greetMost is how many peers are greeted when the tunnel is new. One that is
	// away is tried again every five seconds for a minute and a half
	// (REKEY_ATTEMPT_TIME): were they all, this many cost some hundredths of a
	// processor. In a larger network the rest come by themselves.
	greetMost = 1024
	// inUse is how long a session lasts (REJECT_AFTER_TIME).
	inUse = 3 * time.Minute
)

// greeter begins sessions where one side does not know that it has to: with a
// peer that has changed its key, and with all peers when the tunnel is new. A
// peer with a new key has begun one in vain before it told the key (see Rekey),
// and is silent for five seconds. Peers of a tunnel that is new go on with the
// session that they had with the old one, in vain, and begin another after
// fifteen seconds (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT).
type greeter struct {
	wake chan struct{} // holds one token: there are batches

	mu      sync.Mutex // guards batches
	batches []batch
}

// batch is peers to greet, after a while.
type batch struct {
	keys  []wgtypes.Key
	after time.Duration
}

func newGreeter() *greeter { return &greeter{wake: make(chan struct{}, 1)} }

// note has keys greeted after a while.
func (g *greeter) note(after time.Duration, keys ...wgtypes.Key) {
	g.mu.Lock()
	for chunk := range slices.Chunk(keys, greetBatch) {
		g.batches = append(g.batches, batch{chunk, after})
		after += greetEvery
	}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default: // it has been told
	}
}

func (g *greeter) take() []batch {
	g.mu.Lock()
	defer g.mu.Unlock()
	batches := g.batches
	g.batches = nil
	return batches
}

// greet works until ctx ends (nil).
func (n *network) greet(ctx context.Context) error {
	var meetings sync.WaitGroup
	defer meetings.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.greeter.wake:
		}
		for _, b := range n.greeter.take() {
			meetings.Go(func() { n.meet(ctx, b.keys, b.after) })
		}
	}
}

// meet begins sessions with peers after a while, and again with those that have
// none then. Last, it removes the keys that theirs have replaced.
func (n *network) meet(ctx context.Context, keys []wgtypes.Key, after time.Duration) {
	for try := range greetTries {
		select {
		case <-ctx.Done():
			return
		case <-time.After(after):
		}
		strangers, err := n.begin(keys, try > 0)
		if err != nil {
			ratelog.Warningf("begin sessions with peers: %v", err)
		} else if strangers == 0 {
			break
		}
		after = greetPause<<try + rand.N(greetPause<<try)
	}
	if err := n.retire(keys); err != nil {
		ratelog.Warningf("remove old keys of peers: %v", err)
		n.keeper.Wake() // prepare makes it good
	}
}

// greetAll has all peers greeted, or greetMost of them, whichever. Of two hosts
// that greet each other, the one with the lesser key does it at once, the other
// if that has led to nothing: where both begin at once, wireguard-go may also be
// left with a session in which it only sends, and notices after fifteen seconds.
// One of its workers takes the answer to our beginning meanwhile another gives
// away, for the peer's beginning, the index that the answer is for
// (CreateMessageResponse, device/noise-protocol.go).
func (n *network) greetAll() {
	keys := slices.Collect(maps.Keys(desired(n.peers, n.options)))
	keys = keys[:min(len(keys), greetMost)]
	own := n.key.PublicKey()
	var first, second []wgtypes.Key
	for _, key := range keys {
		if bytes.Compare(own[:], key[:]) < 0 {
			first = append(first, key)
		} else {
			second = append(second, key)
		}
	}
	n.greeter.note(0, first...)
	n.greeter.note(greetPause+rand.N(greetPause), second...)
}

// begin begins sessions with those of keys that have none, and says how many.
func (n *network) begin(keys []wgtypes.Key, again bool) (strangers int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.beginWhere(func(p wgtypes.Peer) bool {
		return slices.Contains(keys, p.PublicKey) && p.LastHandshakeTime.IsZero()
	}, again)
}

// beginWhere begins sessions with some of the tunnel's peers, and says how many.
func (n *network) beginWhere(chosen func(wgtypes.Peer) bool, again bool) (int, error) {
	if n.tunnel == nil {
		return 0, nil
	}
	have, err := n.tunnel.peers()
	if err != nil {
		return 0, fmt.Errorf("list peers of %s: %w", deviceName, err)
	}
	have = slices.DeleteFunc(have, func(p wgtypes.Peer) bool { return !chosen(p) })
	return len(have), n.tunnel.begin(have, again)
}

// retire removes the keys that these have replaced. Until then the tunnel had
// them still, without a subnet: removing one throws away what waits to be
// encrypted for it.
func (n *network) retire(keys []wgtypes.Key) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.retiring)
	maps.DeleteFunc(n.retiring, func(_, now wgtypes.Key) bool { return slices.Contains(keys, now) })
	if n.tunnel == nil || len(n.retiring) == before {
		return nil
	}
	return n.reconcile(false)
}
