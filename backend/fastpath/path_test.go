package fastpath

import "testing"

// TestExchange sees both directions of a TCP flow take the fast path at both
// hosts.
func TestExchange(t *testing.T) {
	_, a, b := newHosts(t)
	for _, h := range []*host{a, b} {
		h.start(h.known())
	}
	s := connect(t, a, b)
	s.exchange(100)
	for _, h := range []*host{a, b} {
		before := h.stats()
		t.Logf("%s %+v", h.Name(), before)
		s.exchange(100)
		after := h.stats()
		if n := after.Sent.Packets - before.Sent.Packets; n < 100 {
			t.Errorf("host %s: the fast path sent %d packets of 100", h.Name(), n)
		}
		if n := after.Received.Packets - before.Received.Packets; n < 100 {
			t.Errorf("host %s: the fast path received %d packets of 100", h.Name(), n)
		}
	}
}
