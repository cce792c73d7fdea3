// Package etcdv2 stores leases in etcd's v2 keyspace, in the layout of the first
// flannel:
//
//	<prefix>/config                  the network configuration
//	<prefix>/subnets/10.5.52.0-24    a host's lease: JSON, with a TTL;
//	                                 or a reservation: the same without
//
// An index numbers each change of the whole keyspace. A wait is a request that the
// server answers with the first change from an index on. A server remembers the
// last 1000 changes of all keys.
package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	goetcd "github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
)

const (
	// roundTripTimeout bounds each call to the store.
	roundTripTimeout = 5 * time.Second
	// waitTimeout ends a wait without events, to start a new one at the server's
	// index. Each wait uses a connection of its own; heartbeat detects dead ones.
	waitTimeout = time.Minute
)

// ErrNoAPI: the server answers and has no v2 API (etcd ≥ 3.4 without -enable-v2,
// and any from 3.6 on).
var ErrNoAPI = errors.New("etcd does not serve the v2 API")

// etcd's error codes, from its v2 API documentation.
const (
	codeKeyNotFound  = 100
	codeTestFailed   = 101
	codeNodeExist    = 105
	codeIndexCleared = 401
)

// Store implements subnet.Keyspace and subnet.Admin with etcd's v2 API.
type Store struct {
	cfg       etcd.ClientConfig
	transport http.RoundTripper
	closeIdle func()
	timeout   time.Duration // of a round trip
	wait      time.Duration // of a wait
	bad       subnet.BadData
	preferred atomic.Int64 // index into cfg.Endpoints of the one to try first
	timing    etcd.HeartbeatTiming
	history   etcd.History

	// life ends with Close, and with it all requests in progress.
	life context.Context
	end  context.CancelFunc
}

// New checks cfg and reads the files that it names. It starts nothing.
func New(cfg etcd.ClientConfig) (*Store, error) {
	cfg, err := cfg.Validate()
	if err != nil {
		return nil, err
	}
	tls, err := cfg.TLS()
	if err != nil {
		return nil, err
	}
	t := newTransport(tls)
	r := &Store{cfg: cfg, transport: t, closeIdle: t.CloseIdleConnections, timeout: roundTripTimeout, wait: waitTimeout}
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// BadCount implements subnet.Source.
func (s *Store) BadCount() uint64 { return s.bad.Count() }

// Config implements subnet.Source.
func (s *Store) Config(ctx context.Context) ([]byte, error) {
	key := s.cfg.ConfigKey()
	resp, err := s.call(ctx, "get "+key, func(c *goetcd.Client) (*goetcd.Response, error) {
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

// PublishConfig implements subnet.Admin.
func (s *Store) PublishConfig(ctx context.Context, config []byte) (written bool, err error) {
	key := s.cfg.ConfigKey()
	_, err = s.call(ctx, "create "+key, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.Create(key, string(config), 0)
	})
	if code(err) == codeNodeExist {
		return false, nil
	}
	return err == nil, err
}

// List implements subnet.Source.
func (s *Store) List(ctx context.Context) ([]subnet.Lease, subnet.Position, error) {
	dir, start := s.cfg.LeaseDir(), time.Now()
	number, _ := s.history.Number()
	resp, err := s.call(ctx, "list "+dir, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.Get(dir, false, false)
	})
	var answer *goetcd.EtcdError
	if errors.As(err, &answer) && answer.ErrorCode == codeKeyNotFound {
		return nil, subnet.Position{Rev: subnet.Rev(answer.Index), History: number}, nil // the directory does not exist yet
	}
	if err != nil {
		return nil, subnet.Position{}, err
	}
	leases := make([]subnet.Lease, 0, len(resp.Node.Nodes))
	for _, n := range resp.Node.Nodes {
		l, err := s.decode(n)
		if err != nil {
			s.bad.Skip(n.Key, err)
			continue
		}
		if n.TTL > 0 {
			// TTL is the time left, rounded up to a second.
			l.Expiration = start.Add(time.Duration(n.TTL-1) * time.Second)
		}
		leases = append(leases, l)
	}
	return leases, subnet.Position{Rev: subnet.Rev(resp.EtcdIndex), History: number}, nil
}

// Overlapping implements subnet.Keyspace. It lists all leases, as the v2 API has
// no ranges.
func (s *Store) Overlapping(ctx context.Context, l subnet.Lease) ([]subnet.Lease, error) {
	leases, _, err := s.List(ctx)
	return slices.DeleteFunc(leases, func(other subnet.Lease) bool { return !other.Overlaps(l) }), err
}

// Close implements subnet.Source.
func (s *Store) Close() error {
	s.end()
	s.closeIdle()
	return nil
}

// call makes one round trip within the time limit.
func (s *Store) call(ctx context.Context, verb string, do func(*goetcd.Client) (*goetcd.Response, error)) (*goetcd.Response, error) {
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.exchange(limited, do)
	switch {
	case err == nil:
		return resp, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", verb, ctx.Err())
	case limited.Err() != nil && s.life.Err() == nil:
		return nil, fmt.Errorf("%s: no answer within %v from %s: %w", verb, s.timeout, s.endpoints(), limited.Err())
	}
	return nil, fmt.Errorf("%s: %w", verb, err)
}

func (s *Store) endpoints() string { return strings.Join(s.cfg.Endpoints, ",") }

// exchange makes one round trip that ends with ctx or Close.
func (s *Store) exchange(ctx context.Context, do func(*goetcd.Client) (*goetcd.Response, error)) (*goetcd.Response, error) {
	if s.life.Err() != nil {
		return nil, subnet.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.life, cancel)
	defer stop()
	c, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := do(c)
	switch {
	case s.life.Err() != nil && err != nil:
		return nil, subnet.ErrClosed
	case err != nil:
		return nil, err
	case resp.Node == nil:
		return nil, errors.New("the answer contains no node")
	}
	return resp, nil
}

// decode decodes a node below <prefix>/subnets.
func (s *Store) decode(n *goetcd.Node) (subnet.Lease, error) {
	if n.Dir {
		return subnet.Lease{}, errors.New("it is a directory")
	}
	l, err := subnet.ParseLease(strings.TrimPrefix(n.Key, s.cfg.LeaseDir()), []byte(n.Value))
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Rev, l.Created, l.Reserved = subnet.Rev(n.ModifiedIndex), subnet.Rev(n.CreatedIndex), n.Expiration == nil
	return l, nil
}

// code returns the code of etcd's own error in err, 0 if there is none.
func code(err error) int {
	var answer *goetcd.EtcdError
	if errors.As(err, &answer) {
		return answer.ErrorCode
	}
	return 0
}
