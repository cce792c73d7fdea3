package etcdv2

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
)

// value is the JSON of a lease key, byte for byte what the first flannel writes
// where there are no backend type and no Extras.
type value struct {
	PublicIP    netip.Addr
	BackendType string          `json:",omitempty"`
	BackendData json.RawMessage `json:",omitempty"`
	subnet.Extras
}

// encode is l's value. It refuses what readers would not understand.
func encode(l subnet.Lease) (string, error) {
	v, err := json.Marshal(value(l.Attrs))
	if err == nil {
		_, err = subnet.ParseLease(l.Key(), v)
	}
	if err != nil {
		return "", fmt.Errorf("encode lease %v: %w", l, err)
	}
	return string(v), nil
}

// Create implements subnet.Registry.
func (r *Registry) Create(ctx context.Context, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	verb, start := "create "+r.key(l), time.Now()
	resp, err := r.call(ctx, verb, func(c *etcd.Client) (*etcd.Response, error) {
		return c.Create(r.key(l), v, seconds(ttl))
	})
	if code(err) == codeNodeExist {
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrExists)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	return granted(l, resp, start), nil
}

// Update implements subnet.Registry. The v2 API's only way to extend a TTL that
// all its generations have is a write to the key, which wakes the watchers.
func (r *Registry) Update(ctx context.Context, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	stored, err := r.stored(ctx, l)
	if err != nil {
		return subnet.Lease{}, err
	}
	secs := seconds(ttl)
	if stored.Expiration == nil {
		if r.sameMeaning(l, stored) {
			l.Reserved, l.Expiration = true, time.Time{}
			return l, nil
		}
		secs = 0 // a write without a TTL leaves the key without one
	}
	verb, start := "update "+r.key(l), time.Now()
	resp, err := r.call(ctx, verb, func(c *etcd.Client) (*etcd.Response, error) {
		return c.CompareAndSwap(r.key(l), v, secs, "", uint64(l.Rev))
	})
	if lost(err) {
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrLost)
	}
	if err != nil {
		return subnet.Lease{}, err
	}
	return granted(l, resp, start), nil
}

// Delete implements subnet.Registry.
func (r *Registry) Delete(ctx context.Context, l subnet.Lease) error {
	verb := "delete " + r.key(l)
	if l.Rev <= 0 {
		return fmt.Errorf("%s: %w", verb, subnet.ErrLost) // 0 would be no condition
	}
	_, err := r.call(ctx, verb, func(c *etcd.Client) (*etcd.Response, error) {
		return c.CompareAndDelete(r.key(l), "", uint64(l.Rev))
	})
	if lost(err) {
		return fmt.Errorf("%s: %w", verb, subnet.ErrLost)
	}
	return err
}

func (r *Registry) key(l subnet.Lease) string { return r.cfg.LeaseDir() + l.Key() }

func lost(err error) bool { return code(err) == codeKeyNotFound || code(err) == codeTestFailed }

// stored reads l's key, which must not have been written since l.Rev.
func (r *Registry) stored(ctx context.Context, l subnet.Lease) (*etcd.Node, error) {
	verb := "get " + r.key(l)
	resp, err := r.call(ctx, verb, func(c *etcd.Client) (*etcd.Response, error) {
		return c.Get(r.key(l), false, false)
	})
	switch {
	case code(err) == codeKeyNotFound:
		return nil, fmt.Errorf("%s: the key is gone: %w", verb, subnet.ErrLost)
	case err != nil:
		return nil, err
	case subnet.Rev(resp.Node.ModifiedIndex) != l.Rev:
		return nil, fmt.Errorf("%s: written at index %d, not %d: %w", verb, resp.Node.ModifiedIndex, l.Rev, subnet.ErrLost)
	}
	return resp.Node, nil
}

// sameMeaning reports whether a peer learns from the stored value what l says.
func (r *Registry) sameMeaning(l subnet.Lease, stored *etcd.Node) bool {
	s, err := r.decode(stored)
	return err == nil && s.Attrs.Equal(l.Attrs)
}

// granted is l as etcd has taken it. The end is counted on this host's clock
// from before the request, so that it is never later than the server's.
func granted(l subnet.Lease, resp *etcd.Response, start time.Time) subnet.Lease {
	l.Rev, l.Reserved, l.Expiration = subnet.Rev(resp.Node.ModifiedIndex), resp.Node.Expiration == nil, time.Time{}
	if !l.Reserved {
		l.Expiration = start.Add(time.Duration(resp.Node.TTL) * time.Second)
	}
	return l
}

// seconds is ttl in etcd's unit, rounded up. 0 would be no limit at all.
func seconds(ttl time.Duration) uint64 {
	return max(1, uint64((ttl+time.Second-1)/time.Second))
}
