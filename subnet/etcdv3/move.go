package etcdv3

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

// Move implements subnet.Keyspace. Both writes have one revision. The deletion is
// the first of its events: a reader that keeps one lease for each IPv4 subnet, as
// today's flannel, has the lease after both.
func (s *Store) Move(ctx context.Context, stored, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	kv, err := s.unchanged(ctx, stored)
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Reserved, l.Expiration = clientv3.LeaseID(kv.Lease) == clientv3.NoLease, time.Time{}
	g := grant{id: clientv3.NoLease}
	if !l.Reserved {
		if g, err = s.grant(ctx, ttl); err != nil {
			return subnet.Lease{}, err
		}
		l.Expiration = g.ends
	}
	from, to := s.key(stored), s.key(l)
	taken := false
	err = s.call(ctx, "move "+from+" to "+to, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(append(asRead(kv), absent(to))...).
			Then(clientv3.OpDelete(from), clientv3.OpPut(to, string(v), clientv3.WithLease(g.id))).
			Else(clientv3.OpGet(to, clientv3.WithKeysOnly())).Commit()
		if err != nil {
			return err
		}
		if !resp.Succeeded {
			taken = len(resp.Responses[0].GetResponseRange().Kvs) > 0
			return errCompare
		}
		l.Rev, l.Created = subnet.Rev(resp.Header.Revision), subnet.Rev(resp.Header.Revision)
		return nil
	})
	if g.id != clientv3.NoLease && refused(err) {
		s.revoke(ctx, g.id)
	}
	switch {
	case err == nil:
		return l, nil
	case taken:
		return subnet.Lease{}, fmt.Errorf("%w: %w", err, subnet.ErrExists)
	case refused(err):
		return subnet.Lease{}, fmt.Errorf("%w: %w", err, subnet.ErrConflict)
	}
	return subnet.Lease{}, err
}
