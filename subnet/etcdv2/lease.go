package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"time"

	goetcd "github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
)

// Create implements subnet.Keyspace.
func (s *Store) Create(ctx context.Context, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	v, err := subnet.EncodeLease(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	verb, start := "create "+s.key(l), time.Now()
	resp, err := s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.Create(s.key(l), string(v), seconds(ttl))
	})
	if code(err) == codeNodeExist {
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrExists)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	return granted(l, resp, start), nil
}

// Update implements subnet.Keyspace. In all versions of the v2 API, only a write
// to the key extends its TTL; it wakes the watchers.
func (s *Store) Update(ctx context.Context, stored subnet.Lease, a subnet.Attrs, ttl time.Duration) (subnet.Lease, error) {
	l := stored
	l.Attrs = a
	v, err := subnet.EncodeLease(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	read, err := s.unchanged(ctx, stored)
	if err != nil {
		return subnet.Lease{}, err
	}
	secs := seconds(ttl)
	if read.Expiration == nil {
		if stored.Attrs.Equal(a) {
			l.Created, l.Reserved, l.Expiration = subnet.Rev(read.CreatedIndex), true, time.Time{}
			return l, nil
		}
		secs = 0 // a write without a TTL leaves the key without one
	}
	verb, start := "update "+s.key(l), time.Now()
	resp, err := s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.CompareAndSwap(s.key(l), string(v), secs, read.Value, read.ModifiedIndex)
	})
	if conflict(err) {
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrConflict)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	return granted(l, resp, start), nil
}

// Move implements subnet.Keyspace. The v2 API changes one key at a time.
func (s *Store) Move(_ context.Context, stored, l subnet.Lease, _ time.Duration) (subnet.Lease, error) {
	return subnet.Lease{}, fmt.Errorf("move %s to %s: %w: etcd's v2 API cannot do this in one step; delete the former key, or use the v3 API (-etcd-api=3)", s.key(stored), s.key(l), errors.ErrUnsupported)
}

// Delete implements subnet.Keyspace and subnet.Admin.
func (s *Store) Delete(ctx context.Context, stored subnet.Lease) error {
	read, err := s.unchanged(ctx, stored)
	if err != nil {
		return err
	}
	verb := "delete " + s.key(stored)
	_, err = s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.CompareAndDelete(s.key(stored), read.Value, read.ModifiedIndex)
	})
	if conflict(err) {
		return fmt.Errorf("%s: %w", verb, subnet.ErrConflict)
	}
	return err
}

func (s *Store) key(l subnet.Lease) string { return s.cfg.LeaseDir() + l.Key() }

// conflict reports whether the condition of a write did not hold.
func conflict(err error) bool { return code(err) == codeKeyNotFound || code(err) == codeTestFailed }

// Get implements subnet.Keyspace.
func (s *Store) Get(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	n, err := s.get(ctx, l)
	if err != nil {
		return subnet.Lease{}, err
	}
	now, err := s.decode(n)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("get %s: %w: %w", s.key(l), subnet.ErrUnreadable, err)
	}
	return now, nil
}

// get reads l's key. It fails with subnet.ErrConflict if there is none.
func (s *Store) get(ctx context.Context, l subnet.Lease) (*goetcd.Node, error) {
	verb := "get " + s.key(l)
	resp, err := s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.Get(s.key(l), false, false)
	})
	switch {
	case code(err) == codeKeyNotFound:
		return nil, fmt.Errorf("%s: the key is gone: %w", verb, subnet.ErrConflict)
	case err != nil:
		return nil, err
	}
	return resp.Node, nil
}

// unchanged reads stored's key. It fails with subnet.ErrConflict if the key is not
// as stored.
func (s *Store) unchanged(ctx context.Context, stored subnet.Lease) (*goetcd.Node, error) {
	n, err := s.get(ctx, stored)
	if err != nil {
		return nil, err
	}
	if now, err := s.decode(n); err != nil || !stored.StoredAs(now) {
		return nil, fmt.Errorf("get %s: written by another party at index %d, not %d: %w",
			s.key(stored), n.ModifiedIndex, stored.Rev, subnet.ErrConflict)
	}
	return n, nil
}

// granted returns l as etcd has stored it. The end is computed with the time
// before the request, so that it is never later than the end on the server.
func granted(l subnet.Lease, resp *goetcd.Response, start time.Time) subnet.Lease {
	l.Rev, l.Created = subnet.Rev(resp.Node.ModifiedIndex), subnet.Rev(resp.Node.CreatedIndex)
	l.Reserved, l.Expiration = resp.Node.Expiration == nil, time.Time{}
	if !l.Reserved {
		l.Expiration = start.Add(time.Duration(resp.Node.TTL) * time.Second)
	}
	return l
}

// seconds returns ttl in etcd's unit, rounded up. 0 would mean no TTL.
func seconds(ttl time.Duration) uint64 {
	return max(1, uint64((ttl+time.Second-1)/time.Second))
}
