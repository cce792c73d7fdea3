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

// askedAtOnce is how many questions for the end of a lease are under way.
const askedAtOnce = 16

// ReplaceConfig implements subnet.Registry.
func (r *Registry) ReplaceConfig(ctx context.Context, old, config []byte) error {
	key := r.cfg.ConfigKey()
	return r.call(ctx, "replace "+key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", string(old))).
			Then(clientv3.OpPut(key, string(config))).Commit()
		if err == nil && !resp.Succeeded {
			return subnet.ErrLost
		}
		return err
	})
}

// Reserve implements subnet.Registry.
func (r *Registry) Reserve(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	key := r.key(l)
	cond, broken := absent(key), subnet.ErrExists
	if l.Rev > 0 {
		cond, broken = unchanged(key, int64(l.Rev)), subnet.ErrLost
	}
	rev, err := r.put(ctx, key, v, cond, clientv3.NoLease)
	if errors.Is(err, errCompare) {
		return subnet.Lease{}, fmt.Errorf("reserve %s: %w", key, broken)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Rev, l.Reserved, l.Expiration = rev, true, time.Time{}
	return l, nil
}

// Ends implements subnet.Ender. It costs two round trips for each lease, which
// etcd's API leaves no way around, and so is for people who ask and for what they
// are told in the end, not for daemons at work.
func (r *Registry) Ends(ctx context.Context, leases []subnet.Lease) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(askedAtOnce)
	for i := range leases {
		l := &leases[i]
		if l.Reserved {
			continue
		}
		g.Go(func() error {
			return r.call(ctx, "ask for the end of "+r.key(*l), func(ctx context.Context, c *clientv3.Client) error {
				kv, err := c.Get(ctx, r.key(*l))
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
