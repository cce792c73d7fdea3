package etcdv2

import (
	"context"
	"fmt"
	"time"

	goetcd "github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
)

// ReplaceConfig implements subnet.Admin.
func (s *Store) ReplaceConfig(ctx context.Context, old, config []byte) error {
	verb := "replace " + s.cfg.ConfigKey()
	if len(old) == 0 {
		return fmt.Errorf("%s: %w", verb, subnet.ErrConflict) // an empty value is no condition
	}
	_, err := s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.CompareAndSwap(s.cfg.ConfigKey(), string(config), 0, string(old), 0)
	})
	if conflict(err) {
		return fmt.Errorf("%s: %w", verb, subnet.ErrConflict)
	}
	return err
}

// Reserve implements subnet.Admin.
func (s *Store) Reserve(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	v, err := subnet.EncodeLease(l)
	if err != nil {
		return subnet.Lease{}, err
	}
	verb := "reserve " + s.key(l)
	var read *goetcd.Node
	if l.Rev > 0 {
		if read, err = s.unchanged(ctx, l); err != nil {
			return subnet.Lease{}, err
		}
	}
	resp, err := s.call(ctx, verb, func(c *goetcd.Client) (*goetcd.Response, error) {
		if read != nil {
			return c.CompareAndSwap(s.key(l), string(v), 0, read.Value, read.ModifiedIndex)
		}
		return c.Create(s.key(l), string(v), 0)
	})
	switch {
	case code(err) == codeNodeExist:
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrExists)
	case conflict(err):
		return subnet.Lease{}, fmt.Errorf("%s: %w", verb, subnet.ErrConflict)
	case err != nil:
		return subnet.Lease{}, err
	}
	return granted(l, resp, time.Time{}), nil
}
