package wireguard

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/repeat"
)

const (
	// greetAfter is how long a peer has to begin a session before we do, and up
	// to twice that, at random. If both do at once, neither gets one, and each
	// waits for five seconds (REKEY_TIMEOUT, section 6.1 of the paper).
	greetAfter = 100 * time.Millisecond
	// greetBatch is how many peers are greeted at a time. A beginning costs both
	// sides some 0.1 ms of processor time.
	greetBatch = 128
	// greetMost is how many peers are greeted when the tunnel is new. One that is
	// away is tried again every five seconds for a minute and a half
	// (REKEY_ATTEMPT_TIME): were they all, this many cost some hundredths of a
	// processor. In a larger network the rest come by themselves.
	greetMost = 1024
)

// greeter begins sessions where one side does not know that it has to: with a
// peer that has changed its key, and with all peers when the tunnel is new. A
// peer with a new key begins one itself when it has something to send; but an
// attempt that comes before we have read that key is in vain, and the next is
// five seconds later. Peers of a tunnel that is new go on with the session that
// they had with the old one, in vain, and begin another after fifteen seconds
// (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT).
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
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.greeter.wake:
		}
		for keys := range slices.Chunk(n.greeter.take(), greetBatch) {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(greetAfter + rand.N(greetAfter)):
			}
			if err := n.begin(keys); err != nil {
				repeat.Warningf("begin sessions with peers: %v", err)
			}
			if err := n.retire(keys); err != nil {
				repeat.Warningf("remove old keys of peers: %v", err)
				n.keeper.Wake() // prepare makes it good
			}
		}
	}
}

// greetAll has all peers greeted, or greetMost of them, whichever.
func (n *network) greetAll() {
	keys := slices.Collect(maps.Keys(desired(n.peers, n.options)))
	n.greeter.note(keys[:min(len(keys), greetMost)]...)
}

// begin begins sessions with those of keys that have none. A keepalive that is
// turned on is sent at once, by either implementation.
func (n *network) begin(keys []wgtypes.Key) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tunnel == nil {
		return nil
	}
	have, err := n.tunnel.peers()
	if err != nil {
		return err
	}
	on, wanted := time.Second, n.options.keepalive
	for _, keepalive := range []*time.Duration{&on, &wanted} {
		var greeted []wgtypes.PeerConfig
		for _, p := range have {
			if slices.Contains(keys, p.PublicKey) && p.LastHandshakeTime.IsZero() {
				greeted = append(greeted, wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepaliveInterval: keepalive})
			}
		}
		if err := n.configure(greeted); err != nil {
			return err
		}
	}
	return nil
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
