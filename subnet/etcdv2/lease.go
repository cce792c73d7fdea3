package etcdv2

import (
	"context"
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
func (s *Store) Update(ctx context.Context, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	v, err := subnet.EncodeLease(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	stored, err := s.stored(ctx, l)
	if err != nil {
		return subnet.Lease{}, err
	}
	secs := seconds(ttl)
	if stored.Expiration == nil {
		if s.sameMeaning(l, stored) {
			l.Reserved, l.Expiration = true, time.Time{}
			return l, nil
		}
		secs = 0 // a write without a TTL leaves the key without one
	}
	verb, start := "update "+s.key(l), time.Now()
	resp, err := s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.CompareAndSwap(s.key(l), string(v), secs, "", uint64(l.Rev))
	})
	if conflict(err) {
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrConflict)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	return granted(l, resp, start), nil
}

// Delete implements subnet.Keyspace and subnet.Admin.
func (s *Store) Delete(ctx context.Context, l subnet.Lease) error {
	verb := "delete " + s.key(l)
	if l.Rev <= 0 {
		return fmt.Errorf("%s: %w", verb, subnet.ErrConflict) // 0 is no condition
	}
	_, err := s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.CompareAndDelete(s.key(l), "", uint64(l.Rev))
	})
	if conflict(err) {
		return fmt.Errorf("%s: %w", verb, subnet.ErrConflict)
	}
	return err
}

func (s *Store) key(l subnet.Lease) string { return s.cfg.LeaseDir() + l.Key() }

// conflict reports whether the condition of a write did not hold.
func conflict(err error) bool { return code(err) == codeKeyNotFound || code(err) == codeTestFailed }

// stored reads l's key. It fails with subnet.ErrConflict if the key was written
// since l.Rev.
func (s *Store) stored(ctx context.Context, l subnet.Lease) (*goetcd.Node, error) {
	verb := "get " + s.key(l)
	resp, err := s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.Get(s.key(l), false, false)
	})
	switch {
	case code(err) == codeKeyNotFound:
		return nil, fmt.Errorf("%s: the key is gone: %w", verb, subnet.ErrConflict)
	case err != nil:
		return nil, err
	case subnet.Rev(resp.Node.ModifiedIndex) != l.Rev:
		return nil, fmt.Errorf("%s: written at index %d, not %d: %w", verb, resp.Node.ModifiedIndex, l.Rev, subnet.ErrConflict)
	}
	return resp.Node, nil
}

// sameMeaning reports whether the stored value decodes to l's attributes.
func (s *Store) sameMeaning(l subnet.Lease, stored *goetcd.Node) bool {
	have, err := s.decode(stored)
	return err == nil && have.Attrs.Equal(l.Attrs)
}

// granted returns l as etcd has stored it. The end is computed with the time
// before the request, so that it is never later than the end on the server.
func granted(l subnet.Lease, resp *goetcd.Response, start time.Time) subnet.Lease {
	l.Rev, l.Reserved, l.Expiration = subnet.Rev(resp.Node.ModifiedIndex), resp.Node.Expiration == nil, time.Time{}
	if !l.Reserved {
		l.Expiration = start.Add(time.Duration(resp.Node.TTL) * time.Second)
	}
	return l
}

// seconds returns ttl in etcd's unit, rounded up. 0 would mean no TTL.
func seconds(ttl time.Duration) uint64 {
	return max(1, uint64((ttl+time.Second-1)/time.Second))
}
