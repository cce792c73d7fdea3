package wireguard

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/repeat"
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
	wake chan struct{} // holds one token: there are keys

	mu   sync.Mutex // guards keys
	keys []wgtypes.Key
}

func newGreeter() *greeter { return &greeter{wake: make(chan struct{}, 1)} }

// note has keys greeted.
func (g *greeter) note(keys ...wgtypes.Key) {
	g.mu.Lock()
	g.keys = append(g.keys, keys...)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default: // it has been told
	}
}

func (g *greeter) take() []wgtypes.Key {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := g.keys
	g.keys = nil
	return keys
}

// greet works until ctx ends (nil).
func (n *network) greet(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-n.greeter.wake:
		}
		var before time.Duration
		for keys := range slices.Chunk(n.greeter.take(), greetBatch) {
			after := before
			g.Go(func() error {
				n.meet(ctx, keys, after)
				return nil
			})
			before += greetEvery
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
			repeat.Warningf("begin sessions with peers: %v", err)
		} else if strangers == 0 {
			break
		}
		after = greetPause<<try + rand.N(greetPause<<try)
	}
	if err := n.retire(keys); err != nil {
		repeat.Warningf("remove old keys of peers: %v", err)
		n.keeper.Wake() // prepare makes it good
	}
}

// greetAll has all peers greeted, or greetMost of them, whichever.
func (n *network) greetAll() {
	keys := slices.Collect(maps.Keys(desired(n.peers, n.options)))
	n.greeter.note(keys[:min(len(keys), greetMost)]...)
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
