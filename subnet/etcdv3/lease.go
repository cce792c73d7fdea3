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

// grant is an etcd lease.
type grant struct {
	id  clientv3.LeaseID
	ttl int64 // seconds; the server may grant more than requested
	// ends is computed with the time before the request, so that it is never
	// later than the end on the server.
	ends time.Time
}

// Create implements subnet.Keyspace.
func (s *Store) Create(ctx context.Context, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	g, err := s.grant(ctx, ttl)
	if err != nil {
		return subnet.Lease{}, err
	}
	key := s.key(l)
	rev, err := s.put(ctx, key, v, []clientv3.Cmp{absent(key)}, g.id)
	if errors.Is(err, errCompare) {
		return subnet.Lease{}, fmt.Errorf("create %s: %w", key, subnet.ErrExists)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Rev, l.Created, l.Expiration, l.Reserved = rev, rev, g.ends, false
	return l, nil
}

// Update implements subnet.Keyspace. If the attributes are unchanged, it keeps
// the etcd lease alive and does not write the key. If the etcd lease has another
// TTL than ttl, Update moves the key to a new one.
//
// It does not revoke the former etcd lease, which expires by itself: other keys
// may be attached to it.
func (s *Store) Update(ctx context.Context, stored subnet.Lease, a subnet.Attrs, ttl time.Duration) (subnet.Lease, error) {
	l := stored
	l.Attrs = a
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	kv, err := s.unchanged(ctx, stored)
	if err != nil {
		return subnet.Lease{}, err
	}
	id := clientv3.LeaseID(kv.Lease)
	same := stored.Attrs.Equal(a)
	l.Created, l.Expiration, l.Reserved = subnet.Rev(kv.CreateRevision), time.Time{}, id == clientv3.NoLease
	if l.Reserved { // promise: reservation-gets-no-ttl
		if !same {
			l.Rev, err = s.replace(ctx, kv, v, clientv3.NoLease)
		}
		return orZero(l, err)
	}
	held := grant{}
	if same { // promise: renewal-writes-no-key
		if held, err = s.keepAlive(ctx, l, id); err != nil {
			return subnet.Lease{}, err
		}
		if held.ttl == seconds(ttl) {
			l.Expiration = held.ends
			return l, nil
		}
	}
	g, err := s.grant(ctx, ttl)
	if err != nil {
		return subnet.Lease{}, err
	}
	if g.ttl == held.ttl {
		// The server grants another TTL than requested; a new lease has it too.
		s.revoke(ctx, g.id)
		l.Expiration = held.ends
		return l, nil
	}
	l.Expiration = g.ends
	l.Rev, err = s.replace(ctx, kv, v, g.id)
	return orZero(l, err)
}

// Delete implements subnet.Keyspace and subnet.Admin.
func (s *Store) Delete(ctx context.Context, stored subnet.Lease) error {
	kv, err := s.unchanged(ctx, stored)
	if err != nil {
		return err
	}
	key := s.key(stored)
	return s.call(ctx, "delete "+key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(asRead(kv)...).Then(clientv3.OpDelete(key)).Commit()
		if err == nil && !resp.Succeeded {
			return subnet.ErrConflict
		}
		return err
	})
}

func (s *Store) key(l subnet.Lease) string { return s.cfg.LeaseDir() + l.Key() }

func absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.Version(key), "=", 0) // promise: create-only-if-absent
}

// asRead are the conditions that a key is as kv was read. In another history,
// another value may have the revision.
func asRead(kv *mvccpb.KeyValue) []clientv3.Cmp {
	key := string(kv.Key)
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision),
		clientv3.Compare(clientv3.Value(key), "=", string(kv.Value))}
}

// Get implements subnet.Keyspace.
func (s *Store) Get(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	kv, err := s.get(ctx, l)
	if err != nil {
		return subnet.Lease{}, err
	}
	now, err := s.decode(kv)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("get %s: %w: %w", s.key(l), subnet.ErrUnreadable, err)
	}
	return now, nil
}

// get reads l's key. It fails with subnet.ErrConflict if there is none.
func (s *Store) get(ctx context.Context, l subnet.Lease) (*mvccpb.KeyValue, error) {
	var kv *mvccpb.KeyValue
	err := s.call(ctx, "get "+s.key(l), func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, s.key(l))
		switch {
		case err != nil:
			return err
		case len(resp.Kvs) == 0:
			return fmt.Errorf("the key is gone: %w", subnet.ErrConflict)
		}
		kv = resp.Kvs[0]
		return nil
	})
	return kv, err
}

// unchanged reads stored's key. It fails with subnet.ErrConflict if the key is not
// as stored.
func (s *Store) unchanged(ctx context.Context, stored subnet.Lease) (*mvccpb.KeyValue, error) {
	kv, err := s.get(ctx, stored)
	if err != nil {
		return nil, err
	}
	if now, err := s.decode(kv); err != nil || !stored.StoredAs(now) {
		return nil, fmt.Errorf("get %s: written by another party at revision %d, not %d: %w",
			s.key(stored), kv.ModRevision, stored.Rev, subnet.ErrConflict)
	}
	return kv, nil
}

// errCompare: the condition of a write does not hold.
var errCompare = errors.New("condition of the write does not hold")

// replace overwrites the value that was read.
func (s *Store) replace(ctx context.Context, read *mvccpb.KeyValue, v []byte, id clientv3.LeaseID) (subnet.Rev, error) {
	key := string(read.Key)
	rev, err := s.put(ctx, key, v, asRead(read), id)
	if errors.Is(err, errCompare) {
		return 0, fmt.Errorf("update %s: %w", key, subnet.ErrConflict)
	}
	return rev, err
}

// put writes the key if conds hold, and attaches it to the etcd lease id. It
// revokes that lease if the write is refused. If the outcome is unknown, the
// lease stays, as the key may be attached to it.
func (s *Store) put(ctx context.Context, key string, v []byte, conds []clientv3.Cmp, id clientv3.LeaseID) (subnet.Rev, error) {
	var rev subnet.Rev
	err := s.call(ctx, "put "+key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(conds...).Then(clientv3.OpPut(key, string(v), clientv3.WithLease(id))).Commit()
		if err == nil && !resp.Succeeded {
			err = errCompare
		}
		if err == nil {
			rev = subnet.Rev(resp.Header.Revision)
		}
		return err
	})
	if id != clientv3.NoLease && refused(err) {
		s.revoke(ctx, id)
	}
	return rev, err
}

// refused reports whether err proves that nothing was written.
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

func (s *Store) grant(ctx context.Context, ttl time.Duration) (grant, error) {
	var g grant
	err := s.call(ctx, "grant etcd lease", func(ctx context.Context, c *clientv3.Client) error {
		start := time.Now()
		resp, err := c.Grant(ctx, seconds(ttl))
		if err == nil {
			g = grant{resp.ID, resp.TTL, start.Add(time.Duration(resp.TTL) * time.Second)}
		}
		return err
	})
	return g, err
}

func (s *Store) keepAlive(ctx context.Context, l subnet.Lease, id clientv3.LeaseID) (grant, error) {
	var g grant
	err := s.call(ctx, "keep alive etcd lease of "+s.key(l), func(ctx context.Context, c *clientv3.Client) error {
		start := time.Now()
		resp, err := c.KeepAliveOnce(ctx, id)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("it has expired: %w", subnet.ErrConflict)
		}
		if err == nil {
			g = grant{id, resp.TTL, start.Add(time.Duration(resp.TTL) * time.Second)}
		}
		return err
	})
	return g, err
}

// revoke removes an etcd lease without keys. A failure does no harm: the lease
// expires by itself.
func (s *Store) revoke(ctx context.Context, id clientv3.LeaseID) {
	_ = s.call(ctx, "revoke etcd lease", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, id)
		return err
	})
}

// seconds returns ttl in etcd's unit, rounded up.
func seconds(ttl time.Duration) int64 {
	return max(1, int64((ttl+time.Second-1)/time.Second))
}

func orZero(l subnet.Lease, err error) (subnet.Lease, error) {
	if err != nil {
		return subnet.Lease{}, err
	}
	return l, nil
}
