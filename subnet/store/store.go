// Package store opens the registry that a network lives in. Two generations of
// etcd's API have keyspaces of their own, in the same server; which of them is
// used is the flag -etcd-api's to say, or to be found out:
//
//	v3 has <prefix>/config                        → v3
//	v3 has none, v2 has                           → v2
//	v3 is not spoken (etcd before 3.0), v2 has    → v2
//	neither has, and there is one to publish      → v3, or v2 where v3 is not spoken
//	anything else                                 → wait
//
// A v3 that does not answer, or not us, decides nothing: the other hosts would
// be in the one keyspace, and we in the other.
package store

import (
	"context"
	"fmt"
	"strings"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcdv2"
	"github.com/coreos/flannel/subnet/etcdv3"
)

// The values of the flag -etcd-api.
const (
	APIAuto = "auto"
	API2    = "2"
	API3    = "3"
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

// Open returns the registry that c describes. It waits, as long as ctx allows,
// for a store that answers, where it has something to find out (API "auto") or
// to write (Publish), and says in the log what it waits for. What is wrong with
// c is an error at once.
func Open(ctx context.Context, c Config) (Store, error) {
	cfg, err := c.StoreConfig.Validate()
	if err != nil {
		return Store{}, err
	}
	c.StoreConfig = cfg
	var s Store
	switch c.API {
	case API3:
		s.API = API3
		s.Registry, err = etcdv3.New(cfg)
	case API2:
		s.API = API2
		s.Registry, err = etcdv2.New(cfg)
	case APIAuto:
		return openAuto(ctx, c)
	default:
		return Store{}, fmt.Errorf("check -etcd-api: %q is none of %s, %s, %s", c.API, APIAuto, API3, API2)
	}
	if err != nil {
		return Store{}, err
	}
	if c.Publish == nil {
		return s, nil
	}
	what := c.describe("publish network configuration as")
	_, err = backoff.Retry(ctx, what, func() (bool, error) { return s.PublishConfig(ctx, c.Publish) })
	if err != nil {
		closeUnused(s)
		return Store{}, fmt.Errorf("%s: %w", what, err)
	}
	return s, nil
}

func openAuto(ctx context.Context, c Config) (Store, error) {
	p, err := newProbe(c)
	if err != nil {
		return Store{}, err
	}
	what := c.describe("wait for")
	s, err := backoff.Retry(ctx, what, func() (Store, error) { return p.choose(ctx) })
	p.release(s)
	if err != nil {
		return Store{}, fmt.Errorf("%s: %w", what, err)
	}
	return s, nil
}

// describe says for the log what is to be done with the configuration's key.
func (c Config) describe(verb string) string {
	return fmt.Sprintf("%s %s at %s (-etcd-api=%s)", verb, c.ConfigKey(), strings.Join(c.Endpoints, ","), c.API)
}

func closeUnused(r subnet.Registry) {
	if err := r.Close(); err != nil {
		log.Warningf("close store that is not used: %v", err)
	}
}
