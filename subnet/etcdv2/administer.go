package etcdv2

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
)

// ReplaceConfig implements subnet.Registry.
func (r *Registry) ReplaceConfig(ctx context.Context, old, config []byte) error {
	verb := "replace " + r.cfg.ConfigKey()
	if len(old) == 0 {
		return fmt.Errorf("%s: %w", verb, subnet.ErrLost) // would be no condition
	}
	_, err := r.call(ctx, verb, func(c *etcd.Client) (*etcd.Response, error) {
		return c.CompareAndSwap(r.cfg.ConfigKey(), string(config), 0, string(old), 0)
	})
	if lost(err) {
		return fmt.Errorf("%s: %w", verb, subnet.ErrLost)
	}
	return err
}

// Reserve implements subnet.Registry.
func (r *Registry) Reserve(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	v, err := encode(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	verb := "reserve " + r.key(l)
	resp, err := r.call(ctx, verb, func(c *etcd.Client) (*etcd.Response, error) {
		if l.Rev > 0 {
			return c.CompareAndSwap(r.key(l), v, 0, "", uint64(l.Rev))
		}
		return c.Create(r.key(l), v, 0)
	})
	switch {
	case code(err) == codeNodeExist:
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrExists)
	case lost(err):
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrLost)
	case err != nil:
		return subnet.Lease{}, err
	}
	return granted(l, resp, time.Time{}), nil
}
