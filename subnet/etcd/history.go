package etcd

import (
	"maps"
	"sync"
)

// Answer is what the header of an answer says about the store's history. Zero
// fields are unknown.
type Answer struct {
	// Cluster is derived from the members' addresses and the cluster's token.
	Cluster string
	// Member is the server that answered. Others may lag behind it. An answer
	// without a member, as some are of etcd's gRPC proxy, has no revision to compare.
	Member string
	// Term counts the elections, and Rev the changes. Neither decreases at one
	// member in one history.
	Term uint64
	Rev  int64
}

// History finds out by the answers to all calls whether the store still has the
// history that it had before. Revisions of two histories are not comparable: a
// store that was wiped, or restored from a copy, may have other data at the same
// revision. A copy may also have the same cluster id and a term like the
// original's. So a later term counts as another history too: a restart of the
// store begins with an election. A member that lags behind may cause a false alarm;
// listing again does no harm then.
//
// The zero value is ready; it is safe for concurrent use.
type History struct {
	mu      sync.Mutex // guards what follows
	number  uint64     // 0 is the first, like 1
	cluster string
	term    uint64            // the highest
	members map[string]Answer // the last of each
	changed chan struct{}     // closed by the next history; made when needed
}

// Mark is what was known before a request was sent. Answers may overtake each
// other, so an answer is compared with those that came before its request.
type Mark struct{ members map[string]Answer }

// Mark returns what is known now.
func (h *History) Mark() Mark {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Mark{maps.Clone(h.members)}
}

// Number returns the number of the present history; it begins with 1. Changed is
// closed when the next one begins.
func (h *History) Number() (number uint64, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return max(h.number, 1), h.changed
}

// Observe takes the header of an answer to a request that was sent after m.
func (h *History) Observe(a Answer, m Mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	other := a.Cluster != "" && h.cluster != "" && a.Cluster != h.cluster || a.before(m)
	if other || h.members == nil {
		h.cluster, h.term, h.members = "", 0, make(map[string]Answer)
	}
	if other || a.Term > h.term && h.term > 0 { // promise: v3-other-history-is-resync
		h.number = max(h.number, 1) + 1
		if h.changed != nil {
			close(h.changed)
			h.changed = nil
		}
	}
	if h.cluster == "" {
		h.cluster = a.Cluster
	}
	h.term = max(h.term, a.Term)
	if a.Member == "" {
		return
	}
	last := h.members[a.Member]
	h.members[a.Member] = Answer{Member: a.Member, Term: max(a.Term, last.Term), Rev: max(a.Rev, last.Rev)}
}

// before reports whether a is from an earlier term or revision than m. An answer of
// a member that is not known is compared with those of all.
func (a Answer) before(m Mark) bool {
	if a.Member == "" {
		return false
	}
	known, ok := m.members[a.Member]
	if !ok {
		for _, last := range m.members {
			known.Term, known.Rev = max(known.Term, last.Term), max(known.Rev, last.Rev)
		}
	}
	return a.Term > 0 && a.Term < known.Term || a.Rev > 0 && a.Rev < known.Rev
}
