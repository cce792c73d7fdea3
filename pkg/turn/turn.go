// Package turn remembers who has turned, such as from a peer that answers into
// one that is silent, since that was last told.
package turn

import (
	"maps"
	"net/netip"
	"sync"
)

// Notes are of turns between two states, true and false. Who brings them about
// says so: to compare thousands of peers again and again would cost more than all
// else that a daemon does when nothing happens. The zero Notes is ready; it is
// safe for concurrent use.
type Notes struct {
	mu   sync.Mutex
	turn map[netip.Prefix]bool // into which state; guarded by mu
}

// Note takes up that who has turned into a state. Who turns there and back has
// not turned.
func (n *Notes) Note(who netip.Prefix, into bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if before, noted := n.turn[who]; noted && before != into {
		delete(n.turn, who)
		return
	}
	if n.turn == nil {
		n.turn = make(map[netip.Prefix]bool)
	}
	n.turn[who] = into
}

// Forget drops what was noted of those who are gone.
func (n *Notes) Forget(gone func(netip.Prefix) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.turn, func(who netip.Prefix, _ bool) bool { return gone(who) })
}

// Take returns who has turned into each state since the last call, in no order.
func (n *Notes) Take() (intoTrue, intoFalse []netip.Prefix) {
	n.mu.Lock()
	noted := n.turn
	n.turn = nil
	n.mu.Unlock()
	for who, into := range noted {
		if into {
			intoTrue = append(intoTrue, who)
		} else {
			intoFalse = append(intoFalse, who)
		}
	}
	return intoTrue, intoFalse
}
