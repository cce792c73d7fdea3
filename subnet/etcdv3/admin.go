package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/subnet"
)

// maxConcurrent bounds the concurrent requests of FillExpirations.
const maxConcurrent = 16

// ReplaceConfig implements subnet.Admin.
func (s *Store) ReplaceConfig(ctx context.Context, old, config []byte) error {
	key := s.cfg.ConfigKey()
	return s.call(ctx, "replace "+key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", string(old))).
			Then(clientv3.OpPut(key, string(config))).Commit()
		if err == nil && !resp.Succeeded {
			return subnet.ErrConflict
		}
		return err
	})
}

// Reserve implements subnet.Admin.
func (s *Store) Reserve(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	key := s.key(l)
	conds, refusal := []clientv3.Cmp{absent(key)}, subnet.ErrExists
	if l.Rev > 0 {
		kv, err := s.unchanged(ctx, l)
		if err != nil {
			return subnet.Lease{}, err
		}
		conds, refusal = asRead(kv), subnet.ErrConflict
	}
	rev, err := s.put(ctx, key, v, conds, clientv3.NoLease)
	if errors.Is(err, errCompare) {
		return subnet.Lease{}, fmt.Errorf("reserve %s: %w", key, refusal)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Rev, l.Reserved, l.Expiration = rev, true, time.Time{}
	if l.Created == 0 {
		l.Created = rev
	}
	return l, nil
}

// FillExpirations implements subnet.Expirer. etcd's API requires two round trips
// for each lease, so it is for commands and final errors, not for a running
// daemon.
func (s *Store) FillExpirations(ctx context.Context, leases []subnet.Lease) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrent)
	for i := range leases {
		l := &leases[i]
		if l.Reserved {
			continue
		}
		g.Go(func() error {
			return s.call(ctx, "get the end of "+s.key(*l), func(ctx context.Context, c *clientv3.Client) error {
				kv, err := c.Get(ctx, s.key(*l))
				if err != nil || len(kv.Kvs) == 0 {
					return err
				}
				resp, err := c.TimeToLive(ctx, clientv3.LeaseID(kv.Kvs[0].Lease))
				if err == nil && resp.TTL > 0 {
					l.Expiration = time.Now().Add(time.Duration(resp.TTL) * time.Second)
				}
				return err
			})
		})
	}
	return g.Wait()
}
