// Package etcdv3 keeps leases in etcd's v3 keyspace, in the layout that today's
// flannel uses as well:
//
//	<prefix>/config                  the network configuration
//	<prefix>/subnets/10.5.52.0-24    a host's lease: JSON, attached to an etcd lease;
//	                                 or a reservation: the same, attached to none
//
// Terms: an etcd lease is a timer on the server that deletes the keys attached
// to it; a revision numbers every change of the whole store.
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
)

// roundTripLimit bounds each exchange with the store.
const roundTripLimit = 5 * time.Second

// ErrClosed is what the calls of a closed Registry return.
var ErrClosed = errors.New("registry is closed")

// Registry implements subnet.Registry over etcd v3.
type Registry struct {
	client clientv3.Config
	cfg    subnet.StoreConfig
	limit  time.Duration
	bad    subnet.BadData

	login     *login
	heartbeat *heartbeat

	mu     sync.Mutex       // guards what follows; not held during a round trip
	conn   *clientv3.Client // nil before the first call
	closed bool
	// seen is the history that the last answers were of.
	seen history
}

// New checks cfg, reads the files that it names, and starts nothing: the first
// call connects.
func New(cfg subnet.StoreConfig) (*Registry, error) {
	cfg, err := cfg.Validate()
	if err != nil {
		return nil, err
	}
	tls, err := cfg.TLS()
	if err != nil {
		return nil, err
	}
	l := &login{user: cfg.Username, password: cfg.Password}
	return &Registry{cfg: cfg, client: clientConfig(cfg, tls, l), login: l,
		heartbeat: newHeartbeat(cfg), limit: roundTripLimit}, nil
}

// BadCount is how many times a bad key or value was left out of an answer.
func (r *Registry) BadCount() uint64 { return r.bad.Count() }

// Config implements subnet.Registry.
func (r *Registry) Config(ctx context.Context) ([]byte, error) {
	var config []byte
	err := r.call(ctx, "get "+r.cfg.ConfigKey(), func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, r.cfg.ConfigKey())
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

// PublishConfig implements subnet.Registry.
func (r *Registry) PublishConfig(ctx context.Context, config []byte) (written bool, err error) {
	key := r.cfg.ConfigKey()
	err = r.call(ctx, "create "+key, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(absent(key)).Then(clientv3.OpPut(key, string(config))).Commit()
		if err == nil {
			written = resp.Succeeded
		}
		return err
	})
	return written, err
}

// List implements subnet.Registry. A value that has become bad is left out, so
// that its peer is gone for a caller that lists, whereas one that watches keeps
// the last good value.
func (r *Registry) List(ctx context.Context) ([]subnet.Lease, subnet.Rev, error) {
	dir := r.cfg.LeaseDir()
	var resp *clientv3.GetResponse
	err := r.call(ctx, "list "+dir, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Get(ctx, dir, clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	r.listed(resp.Header)
	return r.decodeAll(resp.Kvs), subnet.Rev(resp.Header.Revision), nil
}

// Close implements subnet.Registry.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	c := r.conn
	r.conn = nil
	if c == nil {
		return nil
	}
	// The client's own error is that of the context that it just ended.
	if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close connection to etcd: %w", err)
	}
	return nil
}

func (r *Registry) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// call does one round trip within the time limit, and a second one where etcd
// wants a new login first.
func (r *Registry) call(ctx context.Context, verb string, do func(context.Context, *clientv3.Client) error) error {
	limited, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	c, err := r.connection()
	if err == nil {
		err = r.login.do(limited, c, do)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", verb, ctx.Err())
	case r.isClosed():
		return fmt.Errorf("%s: %w", verb, ErrClosed)
	case limited.Err() != nil:
		return fmt.Errorf("%s: no answer within %v from %s: %w", verb, r.limit, r.endpoints(), err)
	}
	return fmt.Errorf("%s: %w", verb, withRemedy(err, r.cfg))
}

func (r *Registry) endpoints() string { return strings.Join(r.cfg.Endpoints, ",") }

// decode reads a key below <prefix>/subnets/.
func (r *Registry) decode(kv *mvccpb.KeyValue) (subnet.Lease, error) {
	l, err := subnet.ParseLease(strings.TrimPrefix(string(kv.Key), r.cfg.LeaseDir()), kv.Value)
	if err != nil {
		return subnet.Lease{}, err
	}
	l.Rev = subnet.Rev(kv.ModRevision)
	l.Reserved = clientv3.LeaseID(kv.Lease) == clientv3.NoLease
	return l, nil
}

// decodeAll leaves out what is bad.
func (r *Registry) decodeAll(kvs []*mvccpb.KeyValue) []subnet.Lease {
	leases := make([]subnet.Lease, 0, len(kvs))
	for _, kv := range kvs {
		l, err := r.decode(kv)
		if err != nil {
			r.bad.Skip(string(kv.Key), err)
			continue
		}
		leases = append(leases, l)
	}
	return leases
}

// connection returns the client, made by the first call. It does not wait.
func (r *Registry) connection() (*clientv3.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if r.conn == nil {
		c, err := clientv3.New(r.client)
		if err != nil {
			return nil, fmt.Errorf("make etcd client: %w", err)
		}
		r.conn = c
	}
	return r.conn, nil
}

// drop has the next call connect anew: the connections to the other endpoints
// are no younger than the one that c's watch found dead, and it would take each
// of them as long to find out. Calls that use c meanwhile fail and are repeated,
// as over any connection that breaks.
func (r *Registry) drop(c *clientv3.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == c {
		r.conn = nil
		_ = c.Close() // the error is that of the context that it just ended
	}
}

// failFast reports a broken connection with its reason, where the client would
// by default wait for a better one, and say no more than that time was up.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}
