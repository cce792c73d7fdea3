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
	// handshakeRetry is the least delay before a look for a session and another
	// initiation. The delay is random, up to twice this, and doubles with each of
	// handshakeTries. If both sides initiate at once, neither gets a session, and
	// each waits 5 s (REKEY_TIMEOUT, section 6.1 of the paper), possibly to collide
	// again. An initiation before the answer to the last one discards the session
	// that this answer makes, with its packets in flight.
	handshakeRetry = 500 * time.Millisecond
	handshakeTries = 3
	// batchSize peers get an initiation each batchInterval. One costs both sides
	// some 0.1 ms of processor time.
	batchSize     = 128
	batchInterval = 50 * time.Millisecond
	// maxHandshakes bounds the initiations of a new tunnel. WireGuard retries an
	// absent peer every 5 s for 90 s (REKEY_ATTEMPT_TIME); this many absent peers
	// cost some hundredths of a processor. The other peers of a larger network
	// initiate their own sessions.
	maxHandshakes = 1024
)

// batch is a set of peers that get an initiation after a delay. Batches are for
// handshakes that WireGuard would start too late by itself: with a peer that has a
// new key, and with all peers of a new tunnel. A peer with a new key has tried
// before it published the key (see Rekey) and stays silent for 5 s. Peers of a new
// tunnel use their session with the old tunnel until 15 s (KEEPALIVE_TIMEOUT +
// REKEY_TIMEOUT) have passed without an answer.
type batch struct {
	keys  []wgtypes.Key
	after time.Duration
}

// enqueue queues keys in batches, the first of which is due after a delay. The
// caller holds mu.
func (n *network) enqueue(after time.Duration, keys ...wgtypes.Key) {
	for chunk := range slices.Chunk(keys, batchSize) {
		n.handshakes = append(n.handshakes, batch{chunk, after})
		after += batchInterval
	}
	n.handshakesDue.Set()
}

// dequeue returns the queued batches and empties the queue.
func (n *network) dequeue() []batch {
	n.mu.Lock()
	defer n.mu.Unlock()
	queue := n.handshakes
	n.handshakes = nil
	return queue
}

// runHandshakes runs the queued batches until ctx ends (nil).
func (n *network) runHandshakes(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.handshakesDue:
		}
		for _, b := range n.dequeue() {
			running.Go(func() { n.handshake(ctx, b) })
		}
	}
}

// handshake initiates a session with each peer of b, and retries where there is
// none yet. Then it drops the old keys of these peers.
func (n *network) handshake(ctx context.Context, b batch) {
	after := b.after
	for try := range handshakeTries {
		select {
		case <-ctx.Done():
			return
		case <-time.After(after):
		}
		noSession, err := n.initiate(b.keys, try > 0)
		if err != nil {
			ratelog.Warningf("initiate sessions with peers: %v", err)
		} else if noSession == 0 {
			break
		}
		after = handshakeRetry<<try + rand.N(handshakeRetry<<try)
	}
	if err := n.dropOldKeys(b.keys); err != nil {
		ratelog.Warningf("remove old keys of peers: %v", err)
		n.wake() // prepare repairs it
	}
}

// handshakeAll queues the peers, at most maxHandshakes of them; the caller holds
// mu. Of two hosts, the
// one with the lesser key initiates at once and the other only after a delay.
// Crossing initiations may leave wireguard-go with a session that only sends, for
// 15 s: a worker accepts the peer's response while another reuses the index of
// that handshake (CreateMessageResponse, device/noise-protocol.go).
func (n *network) handshakeAll() {
	keys := slices.Collect(maps.Keys(desiredPeers(n.peers, n.options)))
	keys = keys[:min(len(keys), maxHandshakes)]
	own := n.key.PublicKey()
	var first, second []wgtypes.Key
	for _, key := range keys {
		if bytes.Compare(own[:], key[:]) < 0 {
			first = append(first, key)
		} else {
			second = append(second, key)
		}
	}
	n.enqueue(0, first...)
	n.enqueue(handshakeRetry+rand.N(handshakeRetry), second...)
}

// initiate starts a handshake with each of keys that has no session, and returns
// how many there are.
func (n *network) initiate(keys []wgtypes.Key, force bool) (noSession int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.initiateWhere(func(p wgtypes.Peer) bool {
		return slices.Contains(keys, p.PublicKey) && p.LastHandshakeTime.IsZero()
	}, force)
}

// initiateWhere starts a handshake with each peer of the tunnel that match
// accepts, and returns how many there are. The caller holds mu.
func (n *network) initiateWhere(match func(wgtypes.Peer) bool, force bool) (int, error) {
	if n.tunnel == nil {
		return 0, nil
	}
	peers, err := n.tunnel.peers()
	if err != nil {
		return 0, fmt.Errorf("list peers of %s: %w", n.end.device, err)
	}
	peers = slices.DeleteFunc(peers, func(p wgtypes.Peer) bool { return !match(p) })
	return len(peers), n.tunnel.initiate(peers, force)
}
