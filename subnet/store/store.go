// Package store opens the store of a network: etcd, or with -kube-subnet-mgr a
// Kubernetes cluster. The two etcd APIs have separate keyspaces in the same server. The flag -etcd-api selects one; "auto" selects it
// by the contents:
//
//	v3 has <prefix>/config                        → v3
//	v3 has none, v2 has                           → v2
//	no v3 API (etcd before 3.0), v2 has           → v2
//	neither has, and there is one to publish      → v3, or v2 without a v3 API
//	anything else                                 → wait
//
// A v3 API that does not answer, or refuses access, decides nothing: the other
// hosts could be in one keyspace and this host in the other.
package store

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/etcdv2"
	"github.com/coreos/flannel/subnet/etcdv3"
	"github.com/coreos/flannel/subnet/kube"
)

// The values of the flag -etcd-api.
const (
	APIAuto = "auto"
	API2    = "2"
	API3    = "3"
)

// APIKubernetes is the API of a Store in a Kubernetes cluster.
const APIKubernetes = "kubernetes"

// FlagAliases are flags of Flags with the same meaning.
var FlagAliases = etcd.FlagAliases

// Flags are the command-line flags that select a store, the same for the daemon
// and all commands.
type Flags struct {
	etcd.Flags
	API string
	// Kube has the flags of a Kubernetes cluster.
	Kube kube.Flags
}

// Register adds the flags to fs, with their defaults.
func (f *Flags) Register(fs *flag.FlagSet) {
	f.Flags.Register(fs)
	f.Kube.Register(fs)
	fs.StringVar(&f.API, "etcd-api", APIAuto, "etcd API: 3, 2, or auto: the one whose keyspace holds <prefix>/config, 3 where both do")
}

// Complete reads the password file and checks all flags. It does not use the
// network.
func (f *Flags) Complete() error {
	if f.Kube.Enabled {
		return f.Kube.Complete()
	}
	if !slices.Contains([]string{APIAuto, API2, API3}, f.API) {
		return fmt.Errorf("-etcd-api %q is none of %s, %s, %s", f.API, APIAuto, API3, API2)
	}
	return f.Flags.Complete()
}

// Config returns the configuration for Open, which publishes nothing.
func (f *Flags) Config() Config {
	if f.Kube.Enabled {
		return Config{API: APIKubernetes, Kube: f.Kube.Config()}
	}
	return Config{ClientConfig: f.ClientConfig, API: f.API}
}

// Config selects the store to open.
type Config struct {
	etcd.ClientConfig
	// API is "3", "2" or "auto": the one whose keyspace holds <prefix>/config, 3
	// if both do. With "kubernetes", Kube counts and ClientConfig does not.
	API  string
	Kube kube.Config
	// Publish, if not nil, is the network configuration to write if there is
	// none; in the v3 keyspace if API leaves the choice.
	Publish []byte
	// Known is true for the Opened of a Store: Open asks no endpoint what it
	// is, and uses Prefix and Endpoints as they are.
	Known bool
}

// Remembered returns c for a store that an earlier run has opened, which may not
// answer now. Prefix is that of the Store's Opened.
func (c Config) Remembered(api, prefix string) Config {
	if c.API == APIKubernetes {
		return c
	}
	c.API, c.Prefix, c.Verbatim, c.Known = api, prefix, api == API3, true
	return c
}

// Store is an open store.
type Store struct {
	subnet.Source
	// Admin is nil for a store that commands cannot write.
	subnet.Admin
	// API is the etcd API in use, "3" or "2", or "kubernetes".
	API string
	// Cluster is the Kubernetes cluster; nil in etcd.
	Cluster *kube.Store
	// Opened opens the same store again.
	Opened Config
	// Warning is a fault of the configuration that the store works in spite of.
	Warning string
	// Published reports whether Open has written Config.Publish.
	Published bool

	newHolder func(*subnet.Config, time.Duration) subnet.Holder
}

// NewManager returns a Manager for the network configuration c. Where leases
// have a TTL, it is ttl.
func (s Store) NewManager(c *subnet.Config, ttl time.Duration, t subnet.Timing) *subnet.Manager {
	return subnet.NewManager(s.Source, s.newHolder(c, ttl), c, t)
}

// Etcd is the client of an etcd API.
type Etcd interface {
	subnet.Keyspace
	subnet.Admin
}

// New returns the Store over an open client of an etcd API.
func New(s Etcd, api string) Store {
	return Store{Source: s, Admin: s, API: api, newHolder: func(c *subnet.Config, ttl time.Duration) subnet.Holder {
		return etcd.NewHolder(s, c, ttl)
	}}
}

// Open opens the store that c selects. An error in c is returned at once. If
// Open has to find out the API or to publish, it waits for the store as long as
// ctx allows, and logs what it waits for.
func Open(ctx context.Context, c Config) (Store, error) {
	if c.API == APIKubernetes {
		return openCluster(c), nil
	}
	written := c.Prefix
	cfg, err := c.ClientConfig.Validate()
	if err != nil {
		return Store{}, err
	}
	warning := ""
	if !c.Known {
		if cfg, warning, err = oneCluster(ctx, cfg, written); err != nil {
			return Store{}, err
		}
	}
	c.ClientConfig = cfg
	s, err := c.open(ctx, written)
	s.Warning = warning
	return s, err
}

func (c Config) open(ctx context.Context, written string) (Store, error) {
	if c.API == APIAuto {
		return openAuto(ctx, c, written)
	}
	s, err := openAPI(c.ClientConfig, c.API)
	if err != nil || c.Known {
		return s, err
	}
	if v3, ok := s.Source.(*etcdv3.Store); ok {
		if s, err = openWritten(ctx, s, v3, c.ClientConfig, written); err != nil {
			return Store{}, err
		}
	}
	if c.Publish == nil {
		return s, nil
	}
	action := c.describe("publish network configuration as")
	s.Published, err = backoff.Retry(ctx, action, func() (bool, error) { return s.PublishConfig(ctx, c.Publish) })
	if err != nil {
		closeUnused(s)
		return Store{}, fmt.Errorf("%s: %w", action, err)
	}
	return s, nil
}

func openAPI(c etcd.ClientConfig, api string) (Store, error) {
	var client Etcd
	var err error
	switch api {
	case API3:
		client, err = etcdv3.New(c)
	case API2:
		client, err = etcdv2.New(c)
	default:
		err = fmt.Errorf("check -etcd-api: %q is none of %s, %s, %s", api, APIAuto, API3, API2)
	}
	if err != nil {
		return Store{}, err
	}
	s := New(client, api)
	s.Opened = Config{ClientConfig: c, API: api, Known: true}
	return s, nil
}

// openWritten returns s, or in its place the store at the prefix that has the
// configuration. It looks once, and logs a failure: the caller waits for the
// store.
func openWritten(ctx context.Context, s Store, v3 *etcdv3.Store, cfg etcd.ClientConfig, written string) (Store, error) {
	found, err := findPrefix(ctx, v3, cfg, written)
	switch {
	case err == nil && found.Prefix != cfg.Prefix:
		closeUnused(s)
		return openAPI(found, API3)
	case err != nil && !subnet.IsAnswer(err) && ctx.Err() == nil:
		log.Warningf("look for the network configuration: %v", describeEndpoints(ctx, cfg, err))
	}
	return s, nil
}

func openAuto(ctx context.Context, c Config, written string) (Store, error) {
	p, err := newProbe(c, written)
	if err != nil {
		return Store{}, err
	}
	action := c.describe("wait for")
	s, err := backoff.Retry(ctx, action, func() (Store, error) { return p.choose(ctx) })
	p.release(s)
	if err != nil {
		return Store{}, fmt.Errorf("%s: %w", action, err)
	}
	return s, nil
}

// describe names an action on the configuration's key, for the log.
func (c Config) describe(verb string) string {
	return fmt.Sprintf("%s %s at %s (-etcd-api=%s)", verb, c.ConfigKey(), strings.Join(c.Endpoints, ","), c.API)
}

func closeUnused(s subnet.Source) {
	if err := s.Close(); err != nil {
		log.Warningf("close store that is not used: %v", err)
	}
}
