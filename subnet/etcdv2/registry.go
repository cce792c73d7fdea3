// Package etcdv2 keeps leases in etcd's v2 keyspace, in the layout of the first
// flannel:
//
//	<prefix>/config                  the network configuration
//	<prefix>/subnets/10.5.52.0-24    a host's lease: JSON, with a TTL;
//	                                 or a reservation: the same without
//
// Terms: an index numbers every change of the whole keyspace; a wait is a
// request that is answered by the first change from an index on. A server
// remembers the last 1000 changes of all keys.
package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
)

const (
	// roundTripLimit bounds each exchange with the store.
	roundTripLimit = 5 * time.Second
	// waitLimit ends a wait that nothing happens in, to begin a new one at the
	// index that the server had reached. Each takes a connection of its own, so
	// it is not for finding out whether that leads anywhere: beat is.
	waitLimit = time.Minute
)

var (
	// ErrClosed is what the calls of a closed Registry return.
	ErrClosed = errors.New("registry is closed")
	// ErrNoAPI: the server is there and has no v2 API (etcd ≥ 3.4 without
	// -enable-v2, and any from 3.6 on).
	ErrNoAPI = errors.New("etcd does not serve the v2 API")
)

// etcd's error codes, from its v2 API documentation.
const (
	codeKeyNotFound  = 100
	codeTestFailed   = 101
	codeNodeExist    = 105
	codeIndexCleared = 401
)

// Registry implements subnet.Registry over etcd v2.
type Registry struct {
	cfg       subnet.StoreConfig
	transport http.RoundTripper
	closeIdle func()
	limit     time.Duration // of a round trip
	wait      time.Duration // of a wait
	bad       subnet.BadData
	preferred atomic.Int64 // index into cfg.Endpoints of the one to try first
	pulse     subnet.Pulse

	// life ends with Close; every request under way hangs on it.
	life context.Context
	end  context.CancelFunc
}

// New checks cfg, reads the files that it names, and starts nothing.
func New(cfg subnet.StoreConfig) (*Registry, error) {
	cfg, err := cfg.Validate()
	if err != nil {
		return nil, err
	}
	tls, err := cfg.TLS()
	if err != nil {
		return nil, err
	}
	t := newTransport(tls)
	r := &Registry{cfg: cfg, transport: t, closeIdle: t.CloseIdleConnections, limit: roundTripLimit, wait: waitLimit}
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// BadCount is how many times a bad key or value was left out of an answer.
func (r *Registry) BadCount() uint64 { return r.bad.Count() }

// Config implements subnet.Registry.
func (r *Registry) Config(ctx context.Context) ([]byte, error) {
	key := r.cfg.ConfigKey()
	resp, err := r.call(ctx, "get "+key, func(c *etcd.Client) (*etcd.Response, error) {
		return c.Get(key, false, false)
	})
	switch {
	case code(err) == codeKeyNotFound:
		return nil, fmt.Errorf("get %s: %w", key, subnet.ErrNoConfig)
	case err != nil:
		return nil, err
	case resp.Node.Dir:
		return nil, fmt.Errorf("get %s: it is a directory", key)
	}
	return []byte(resp.Node.Value), nil
}

// PublishConfig implements subnet.Registry.
func (r *Registry) PublishConfig(ctx context.Context, config []byte) (written bool, err error) {
	key := r.cfg.ConfigKey()
	_, err = r.call(ctx, "create "+key, func(c *etcd.Client) (*etcd.Response, error) {
		return c.Create(key, string(config), 0)
	})
	if code(err) == codeNodeExist {
		return false, nil
	}
	return err == nil, err
}

// List implements subnet.Registry.
func (r *Registry) List(ctx context.Context) ([]subnet.Lease, subnet.Rev, error) {
	dir, start := r.cfg.LeaseDir(), time.Now()
	resp, err := r.call(ctx, "list "+dir, func(c *etcd.Client) (*etcd.Response, error) {
		return c.Get(dir, false, false)
	})
	var answer *etcd.EtcdError
	if errors.As(err, &answer) && answer.ErrorCode == codeKeyNotFound {
		return nil, subnet.Rev(answer.Index), nil // nobody has made the directory yet
	}
	if err != nil {
		return nil, 0, err
	}
	leases := make([]subnet.Lease, 0, len(resp.Node.Nodes))
	for _, n := range resp.Node.Nodes {
		l, err := r.decode(n)
		if err != nil {
			r.bad.Skip(n.Key, err)
			continue
		}
		if n.TTL > 0 {
			// What is left, rounded up to a second.
			l.Expiration = start.Add(time.Duration(n.TTL-1) * time.Second)
		}
		leases = append(leases, l)
	}
	return leases, subnet.Rev(resp.EtcdIndex), nil
}

// Overlapping implements subnet.Registry. The API has no ranges: it is a list.
func (r *Registry) Overlapping(ctx context.Context, p netip.Prefix) ([]subnet.Lease, error) {
	leases, _, err := r.List(ctx)
	return slices.DeleteFunc(leases, func(l subnet.Lease) bool { return !l.Subnet.Overlaps(p) }), err
}

// Close implements subnet.Registry.
func (r *Registry) Close() error {
	r.end()
	r.closeIdle()
	return nil
}

// call does one round trip within the time limit.
func (r *Registry) call(ctx context.Context, verb string, do func(*etcd.Client) (*etcd.Response, error)) (*etcd.Response, error) {
	limited, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	resp, err := r.exchange(limited, do)
	switch {
	case err == nil:
		return resp, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", verb, ctx.Err())
	case limited.Err() != nil && r.life.Err() == nil:
		return nil, fmt.Errorf("%s: no answer within %v from %s: %w", verb, r.limit, r.endpoints(), limited.Err())
	}
	return nil, fmt.Errorf("%s: %w", verb, err)
}

func (r *Registry) endpoints() string { return strings.Join(r.cfg.Endpoints, ",") }

// exchange does one round trip that ends with ctx or Close.
func (r *Registry) exchange(ctx context.Context, do func(*etcd.Client) (*etcd.Response, error)) (*etcd.Response, error) {
	if r.life.Err() != nil {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(r.life, cancel)
	defer stop()
	c, err := r.client(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := do(c)
	switch {
	case r.life.Err() != nil && err != nil:
		return nil, ErrClosed
	case err != nil:
		return nil, err
	case resp.Node == nil:
		return nil, errors.New("the answer has no node in it")
	}
	return resp, nil
}

// decode reads a node below <prefix>/subnets.
func (r *Registry) decode(n *etcd.Node) (subnet.Lease, error) {
	if n.Dir {
		return subnet.Lease{}, errors.New("it is a directory")
	}
	l, err := subnet.ParseLease(strings.TrimPrefix(n.Key, r.cfg.LeaseDir()), []byte(n.Value))
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Rev, l.Reserved = subnet.Rev(n.ModifiedIndex), n.Expiration == nil
	return l, nil
}

// code is the code of etcd's own error in err, 0 if there is none.
func code(err error) int {
	var answer *etcd.EtcdError
	if errors.As(err, &answer) {
		return answer.ErrorCode
	}
	return 0
}
