package etcdv3

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// NotifyConfig implements subnet.ConfigNotifier. Without WithRequireLeader, the client
// has another stream for this watch than for that of the leases, which ends with its
// stream.
func (s *Store) NotifyConfig(ctx context.Context, changed func()) error {
	err := s.notifyConfig(ctx, changed)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("watch %s: %w", s.cfg.ConfigKey(), err)
}

func (s *Store) notifyConfig(ctx context.Context, changed func()) error {
	c, err := s.watchClient(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	responses := c.Watch(ctx, s.cfg.ConfigKey(), clientv3.WithCreatedNotify())
	defer func() {
		cancel()
		for range responses { // until the client has released it
		}
	}()
	for resp := range responses {
		if err := resp.Err(); err != nil {
			return err
		}
		changed()
	}
	return errCut
}
