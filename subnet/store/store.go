// Package store opens the registry that a network lives in.
package store

import (
	"context"
	"fmt"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcdv3"
)

// Config says which store to open.
type Config struct {
	subnet.StoreConfig
	// API is "3", "2" or "auto": the one whose keyspace holds <prefix>/config, 3
	// where both do.
	API string
	// Publish, if not nil, is the network configuration to write where there is
	// none; in the v3 keyspace, if API leaves the choice.
	Publish []byte
}

// Store is a registry and the API that it speaks, "3" or "2".
type Store struct {
	subnet.Registry
	API string
}

// Open returns the registry that c describes. It waits for a store that does
// not answer as long as ctx allows, and says in the log what it waits for. What
// is wrong with c is an error at once.
func Open(ctx context.Context, c Config) (Store, error) {
	reg, err := etcdv3.New(c.StoreConfig)
	if err != nil {
		return Store{}, err
	}
	if c.Publish == nil {
		return Store{reg, "3"}, nil
	}
	_, err = backoff.Retry(ctx, "publish network configuration", func() (bool, error) {
		return reg.PublishConfig(ctx, c.Publish)
	})
	if err != nil {
		reg.Close()
		return Store{}, fmt.Errorf("publish network configuration: %w", err)
	}
	return Store{reg, "3"}, nil
}
