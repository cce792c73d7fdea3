package wireguard

import (
	"context"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// greetAfter is how long a peer with a new key has to begin a session before we
// do. If both do at once, neither gets one, and each waits for five seconds
// (REKEY_TIMEOUT, section 6.1 of the paper).
const greetAfter = 100 * time.Millisecond

// greeter begins sessions with peers that have changed their keys. Such a peer
// begins one itself when it has something to send; but an attempt that comes
// before we have read its new key is in vain, and the next is five seconds
// later.
type greeter struct {
	wake chan struct{} // holds one token: there are keys

	mu   sync.Mutex // guards keys
	keys []wgtypes.Key
}

func newGreeter() *greeter { return &greeter{wake: make(chan struct{}, 1)} }

// note has a key greeted.
func (g *greeter) note(key wgtypes.Key) {
	g.mu.Lock()
	g.keys = append(g.keys, key)
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
		keys := n.greeter.take()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(greetAfter):
		}
		if err := n.begin(keys); err != nil {
			log.Warningf("begin session with peers that have a new key: %v", err)
		}
	}
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
