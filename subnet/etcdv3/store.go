// Package etcdv3 stores leases in etcd's v3 keyspace, in the layout of today's
// flannel:
//
//	<prefix>/config                  the network configuration
//	<prefix>/subnets/10.5.52.0-24    a host's lease: JSON, attached to an etcd lease;
//	                                 or a reservation: the same, attached to none
//
// An etcd lease is a timer on the server that deletes the keys attached to it. A
// revision numbers each change of the whole store.
package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
)

// roundTripTimeout bounds each call to the store.
const roundTripTimeout = 5 * time.Second

// Store implements subnet.Keyspace, subnet.Admin and subnet.Expirer with etcd's
// v3 API.
type Store struct {
	client  clientv3.Config
	cfg     etcd.ClientConfig
	timeout time.Duration // of a round trip
	bad     subnet.BadData

	login     *login
	heartbeat *heartbeat
	history   *etcd.History

	mu     sync.Mutex       // guards what follows; not held during a round trip
	conn   *clientv3.Client // nil before the first call
	closed bool
}

// New checks cfg and reads the files that it names. It starts nothing: the first
// call connects.
func New(cfg etcd.ClientConfig) (*Store, error) {
	cfg, err := cfg.Validate()
	if err != nil {
		return nil, err
	}
	tls, err := cfg.TLS()
	if err != nil {
		return nil, err
	}
	l := &login{user: cfg.Username, password: cfg.Password}
	h := new(etcd.History)
	return &Store{cfg: cfg, client: clientConfig(cfg, tls, l, h), login: l, history: h,
		heartbeat: newHeartbeat(cfg), timeout: roundTripTimeout}, nil
}

// BadCount implements subnet.Source.
func (s *Store) BadCount() uint64 { return s.bad.Count() }

// Config implements subnet.Source.
func (s *Store) Config(ctx context.Context) ([]byte, error) {
	var config []byte
	err := s.call(ctx, "get "+s.cfg.ConfigKey(), func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, s.cfg.ConfigKey())
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			return subnet.ErrNoConfig
		}
		config = resp.Kvs[0].Value
		return nil
	})
	return config, err
}

// PublishConfig implements subnet.Admin.
func (s *Store) PublishConfig(ctx context.Context, config []byte) (written bool, err error) {
	key := s.cfg.ConfigKey()
	err = s.call(ctx, "create "+key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(absent(key)).Then(clientv3.OpPut(key, string(config))).Commit()
		if err == nil {
			written = resp.Succeeded
		}
		return err
	})
	return written, err
}

// List implements subnet.Source. It leaves out a value that became bad, so that
// its peer is gone. A watch, by contrast, keeps the last good value.
func (s *Store) List(ctx context.Context) ([]subnet.Lease, subnet.Position, error) {
	dir := s.cfg.LeaseDir()
	before, _ := s.history.Number()
	var resp *clientv3.GetResponse
	err := s.call(ctx, "list "+dir, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Get(ctx, dir, clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return nil, subnet.Position{}, err
	}
	return s.decodeAll(resp.Kvs), subnet.Position{Rev: subnet.Rev(resp.Header.Revision), History: before}, nil
}

// Close implements subnet.Source.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	c := s.conn
	s.conn = nil
	if c == nil {
		return nil
	}
	// The client returns the error of its own context, which it just ended.
	if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close connection to etcd: %w", err)
	}
	return nil
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// call makes one round trip within the time limit; a second one if etcd requires
// a new login.
func (s *Store) call(ctx context.Context, verb string, do func(context.Context, *clientv3.Client) error) error {
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c, err := s.connection()
	if err == nil {
		err = s.login.do(limited, c, do)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", verb, ctx.Err())
	case s.isClosed():
		return fmt.Errorf("%s: %w", verb, subnet.ErrClosed)
	case limited.Err() != nil:
		return fmt.Errorf("%s: no answer within %v from %s: %w", verb, s.timeout, s.endpoints(), err)
	}
	return fmt.Errorf("%s: %w", verb, withRemedy(err, s.cfg))
}

func (s *Store) endpoints() string { return strings.Join(s.cfg.Endpoints, ",") }

// decode decodes a key below <prefix>/subnets/.
func (s *Store) decode(kv *mvccpb.KeyValue) (subnet.Lease, error) {
	l, err := subnet.ParseLease(strings.TrimPrefix(string(kv.Key), s.cfg.LeaseDir()), kv.Value)
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Rev, l.Created = subnet.Rev(kv.ModRevision), subnet.Rev(kv.CreateRevision)
	l.Reserved = clientv3.LeaseID(kv.Lease) == clientv3.NoLease
	return l, nil
}

// decodeAll decodes keys and leaves out bad ones.
func (s *Store) decodeAll(kvs []*mvccpb.KeyValue) []subnet.Lease {
	leases := make([]subnet.Lease, 0, len(kvs))
	for _, kv := range kvs {
		l, err := s.decode(kv)
		if err != nil {
			s.bad.Skip(string(kv.Key), err)
			continue
		}
		leases = append(leases, l)
	}
	return leases
}

// connection returns the client, which the first call creates. It does not wait.
func (s *Store) connection() (*clientv3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, subnet.ErrClosed
	}
	if s.conn == nil {
		c, err := clientv3.New(s.client)
		if err != nil {
			return nil, fmt.Errorf("make etcd client: %w", err)
		}
		s.conn = c
	}
	return s.conn, nil
}

// drop makes the next call open new connections. c's connections to other
// endpoints are as old as the dead one, and it would take as long to detect each
// of them. Calls that still use c fail and are repeated.
func (s *Store) drop(c *clientv3.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c {
		s.conn = nil
		_ = c.Close() // returns the error of its own context
	}
}

// failFast makes a call over a broken connection fail with the reason. By
// default the client waits for a better one and fails without a reason.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}
