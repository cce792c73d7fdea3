package etcdv3

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

// ConfigAt returns the network configuration at another prefix, and the id of the
// cluster that answered. Errors: subnet.ErrNoConfig, with the id; or the failure of
// the round trip.
func (s *Store) ConfigAt(ctx context.Context, prefix string) (config []byte, cluster uint64, err error) {
	key := prefix + "/config"
	err = s.call(ctx, "get "+key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, key)
		if err != nil {
			return err
		}
		cluster = resp.Header.ClusterId
		if len(resp.Kvs) == 0 {
			return fmt.Errorf("get %s: %w", key, subnet.ErrNoConfig)
		}
		config = resp.Kvs[0].Value
		return nil
	})
	return config, cluster, err
}
