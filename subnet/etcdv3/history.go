package etcdv3

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// history names a store's past, as far as etcd's answers tell it. Revisions of
// different histories mean nothing to each other: one that was restored from a
// backup may have got past the revision that we knew before we are back.
type history struct {
	// cluster is a number of the members' addresses and the cluster's token.
	cluster uint64
	// term counts the elections. It never goes back in one history, and begins
	// anew in one that was restored.
	term uint64
}

// listed begins with the history of an answer to List.
func (r *Registry) listed(h *pb.ResponseHeader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = history{h.ClusterId, h.RaftTerm}
}

// continues reports whether an answer is of the history that was listed. A
// member that lags behind may seem to be of another: to list again does no harm
// then.
func (r *Registry) continues(h *pb.ResponseHeader) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := history{h.ClusterId, h.RaftTerm}
	if r.seen != (history{}) && (now.cluster != r.seen.cluster || now.term < r.seen.term) {
		return false
	}
	r.seen = now
	return true
}
