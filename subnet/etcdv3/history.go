package etcdv3

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// history identifies the history of a store by the headers of etcd's answers.
// Revisions of different histories are not comparable: a store that was restored
// from a backup may pass our last revision before we reconnect.
type history struct {
	// cluster is derived from the members' addresses and the cluster's token.
	cluster uint64
	// term counts the elections. It never decreases in one history and starts
	// again in a restored one.
	term uint64
}

// listed sets the history to that of an answer to List.
func (s *Store) listed(h *pb.ResponseHeader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = history{h.ClusterId, h.RaftTerm}
}

// continues reports whether an answer belongs to the history that was listed. A
// member that lags behind may seem to belong to another; the caller then lists
// again, which does no harm.
func (s *Store) continues(h *pb.ResponseHeader) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := history{h.ClusterId, h.RaftTerm}
	if s.seen != (history{}) && (now.cluster != s.seen.cluster || now.term < s.seen.term) {
		return false
	}
	s.seen = now
	return true
}
