package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/coreos/flannel/subnet"
)

// grant is an etcd lease that we asked for.
type grant struct {
	id  clientv3.LeaseID
	ttl int64 // seconds; the server may grant more than asked for
	// ends is counted on this host's clock from before the request, so that it
	// is never later than the server's.
	ends time.Time
}

// Create implements subnet.Registry.
func (r *Registry) Create(ctx context.Context, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	g, err := r.grant(ctx, ttl)
	if err != nil {
		return subnet.Lease{}, err
	}
	key := r.key(l)
	rev, err := r.put(ctx, key, v, absent(key), g.id)
	if errors.Is(err, errCompare) {
		return subnet.Lease{}, fmt.Errorf("create %s: %w", key, subnet.ErrExists)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Rev, l.Expiration, l.Reserved = rev, g.ends, false
	return l, nil
}

// Update implements subnet.Registry. Unchanged attributes cost no write: the
// etcd lease is kept alive, the key keeps its revision. Only if that lease was
// granted for another time than ttl is the key moved to a new one.
//
// An etcd lease that a key has left is not revoked but runs out: somebody may
// have attached other keys to it.
func (r *Registry) Update(ctx context.Context, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	kv, err := r.stored(ctx, l)
	if err != nil {
		return subnet.Lease{}, err
	}
	id := clientv3.LeaseID(kv.Lease)
	same := sameMeaning(l.Key(), kv.Value, v)
	l.Expiration, l.Reserved = time.Time{}, id == clientv3.NoLease
	if l.Reserved {
		if !same {
			l.Rev, err = r.replace(ctx, kv, v, clientv3.NoLease)
		}
		return orZero(l, err)
	}
	held := grant{}
	if same {
		if held, err = r.keepAlive(ctx, l, id); err != nil {
			return subnet.Lease{}, err
		}
		if held.ttl == seconds(ttl) {
			l.Expiration = held.ends
			return l, nil
		}
	}
	g, err := r.grant(ctx, ttl)
	if err != nil {
		return subnet.Lease{}, err
	}
	if g.ttl == held.ttl {
		// The server does not grant what we ask for; a new one is no better.
		r.revoke(ctx, g.id)
		l.Expiration = held.ends
		return l, nil
	}
	l.Expiration = g.ends
	l.Rev, err = r.replace(ctx, kv, v, g.id)
	return orZero(l, err)
}

// Delete implements subnet.Registry.
func (r *Registry) Delete(ctx context.Context, l subnet.Lease) error {
	if l.Rev <= 0 {
		return fmt.Errorf("delete %s: %w", r.key(l), subnet.ErrLost) // 0 would match an absent key
	}
	return r.call(ctx, "delete "+r.key(l), func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(unchanged(r.key(l), int64(l.Rev))).Then(clientv3.OpDelete(r.key(l))).Commit()
		if err == nil && !resp.Succeeded {
			return subnet.ErrLost
		}
		return err
	})
}

func (r *Registry) key(l subnet.Lease) string { return r.cfg.LeaseDir() + l.Key() }

func absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.Version(key), "=", 0)
}

func unchanged(key string, rev int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", rev)
}

// stored reads l's key, which must not have been written since l.Rev.
func (r *Registry) stored(ctx context.Context, l subnet.Lease) (*mvccpb.KeyValue, error) {
	var kv *mvccpb.KeyValue
	err := r.call(ctx, "get "+r.key(l), func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, r.key(l))
		switch {
		case err != nil:
			return err
		case len(resp.Kvs) == 0:
			return fmt.Errorf("the key is gone: %w", subnet.ErrLost)
		case subnet.Rev(resp.Kvs[0].ModRevision) != l.Rev:
			return fmt.Errorf("written at revision %d, not %d: %w", resp.Kvs[0].ModRevision, l.Rev, subnet.ErrLost)
		}
		kv = resp.Kvs[0]
		return nil
	})
	return kv, err
}

// errCompare: the store refused a write because its condition did not hold.
var errCompare = errors.New("condition of the write does not hold")

// replace writes over what was read.
func (r *Registry) replace(ctx context.Context, read *mvccpb.KeyValue, v []byte, id clientv3.LeaseID) (subnet.Rev, error) {
	key := string(read.Key)
	rev, err := r.put(ctx, key, v, unchanged(key, read.ModRevision), id)
	if errors.Is(err, errCompare) {
		return 0, fmt.Errorf("update %s: %w", key, subnet.ErrLost)
	}
	return rev, err
}

// put writes the key under a condition and attaches it to the etcd lease id. A
// refused write takes the lease with it. Where the outcome is unknown the lease
// stays, because the key may hang on it.
func (r *Registry) put(ctx context.Context, key string, v []byte, cond clientv3.Cmp, id clientv3.LeaseID) (subnet.Rev, error) {
	var rev subnet.Rev
	err := r.call(ctx, "put "+key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(cond).Then(clientv3.OpPut(key, string(v), clientv3.WithLease(id))).Commit()
		if err == nil && !resp.Succeeded {
			err = errCompare
		}
		if err == nil {
			rev = subnet.Rev(resp.Header.Revision)
		}
		return err
	})
	if id != clientv3.NoLease && refused(err) {
		r.revoke(ctx, id)
	}
	return rev, err
}

// refused reports whether err says for sure that nothing was written.
func refused(err error) bool {
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		switch answer.Code() {
		case codes.InvalidArgument, codes.PermissionDenied, codes.NotFound,
			codes.FailedPrecondition, codes.ResourceExhausted, codes.Unauthenticated:
			return true
		}
	}
	return errors.Is(err, errCompare)
}

func (r *Registry) grant(ctx context.Context, ttl time.Duration) (grant, error) {
	var g grant
	err := r.call(ctx, "grant etcd lease", func(ctx context.Context, c *clientv3.Client) error {
		start := time.Now()
		resp, err := c.Grant(ctx, seconds(ttl))
		if err == nil {
			g = grant{resp.ID, resp.TTL, start.Add(time.Duration(resp.TTL) * time.Second)}
		}
		return err
	})
	return g, err
}

func (r *Registry) keepAlive(ctx context.Context, l subnet.Lease, id clientv3.LeaseID) (grant, error) {
	var g grant
	err := r.call(ctx, "keep alive etcd lease of "+r.key(l), func(ctx context.Context, c *clientv3.Client) error {
		start := time.Now()
		resp, err := c.KeepAliveOnce(ctx, id)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("it has expired: %w", subnet.ErrLost)
		}
		if err == nil {
			g = grant{id, resp.TTL, start.Add(time.Duration(resp.TTL) * time.Second)}
		}
		return err
	})
	return g, err
}

// revoke tidies up an etcd lease that no key hangs on. A failure costs nothing:
// the lease runs out by itself.
func (r *Registry) revoke(ctx context.Context, id clientv3.LeaseID) {
	_ = r.call(ctx, "revoke etcd lease", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, id)
		return err
	})
}

// seconds is ttl in etcd's unit, rounded up.
func seconds(ttl time.Duration) int64 {
	return max(1, int64((ttl+time.Second-1)/time.Second))
}

func orZero(l subnet.Lease, err error) (subnet.Lease, error) {
	if err != nil {
		return subnet.Lease{}, err
	}
	return l, nil
}
