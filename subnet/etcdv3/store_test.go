package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// testLimit is the time limit of Stores that exceed it.
const testLimit = 300 * time.Millisecond

// nextPrefix gives each test a store of its own on a shared server.
var nextPrefix atomic.Int64

func TestConformance(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	conformance(t, srv.Client(), srv.ClientConfig)
}

func TestConformanceTLSAuth(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{ClientCert: true, User: "flannel", Password: "secret", Prefix: "/test"})
	conformance(t, srv.Client(), srv.ClientConfig)
}

// conformance runs the suite; back is the back door, config returns the
// Store's configuration.
func conformance(t *testing.T, back *clientv3.Client, config func(prefix string) etcd.ClientConfig) {
	open := func(t *testing.T) subnettest.Harness {
		r := openStore(t, config(fmt.Sprintf("/test/%d", nextPrefix.Add(1))))
		count := &counter{}
		count.attach(r)
		b := backdoor{t, back, r.cfg.LeaseDir()}
		return subnettest.Harness{
			Store: r, Requests: count.requests, QuietRenewal: true,
			Put: b.put, Get: b.get, Delete: b.delete, Forget: b.forget,
			SetConfig:   func(config []byte) { b.write(r.cfg.ConfigKey(), config, 0) },
			Unreachable: unreachable, Silent: silent, Limit: testLimit,
		}
	}
	subnettest.Keyspace(t, open)
	subnettest.Families(t, open)
	subnettest.Admin(t, open)
}

func openStore(t *testing.T, cfg etcd.ClientConfig) *Store {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func unreachable(t *testing.T) subnettest.Store {
	r := openStore(t, etcd.ClientConfig{Endpoints: []string{etcdserver.FreeAddr(t)}})
	r.timeout = testLimit
	return r
}

// silent returns a Store of a server that accepts connections and never answers.
func silent(t *testing.T) subnettest.Store {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := openStore(t, etcd.ClientConfig{Endpoints: []string{l.Addr().String()}})
	r.timeout = testLimit
	return r
}

// counter counts round trips.
type counter struct{ unary, streams atomic.Int64 }

// attach must come before the first call.
func (c *counter) attach(r *Store) {
	r.client.DialOptions = append(r.client.DialOptions,
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
			invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			c.unary.Add(1)
			return invoke(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
			streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			c.streams.Add(1)
			return streamer(ctx, desc, cc, method, opts...)
		}))
}

func (c *counter) requests() int { return int(c.unary.Load() + c.streams.Load()) }

// backdoor accesses the store like an operator.
type backdoor struct {
	t   *testing.T
	c   *clientv3.Client
	dir string
}

func (b backdoor) put(key string, value []byte, ttl time.Duration) { b.write(b.dir+key, value, ttl) }

func (b backdoor) write(key string, value []byte, ttl time.Duration) {
	b.t.Helper()
	var opts []clientv3.OpOption
	if ttl > 0 {
		l, err := b.c.Grant(b.t.Context(), seconds(ttl))
		b.must(err)
		opts = append(opts, clientv3.WithLease(l.ID))
	}
	_, err := b.c.Put(b.t.Context(), key, string(value), opts...)
	b.must(err)
}

func (b backdoor) get(key string) ([]byte, bool) {
	b.t.Helper()
	resp, err := b.c.Get(b.t.Context(), b.dir+key)
	b.must(err)
	if len(resp.Kvs) == 0 {
		return nil, false
	}
	return resp.Kvs[0].Value, resp.Kvs[0].Lease != 0
}

func (b backdoor) delete(key string) {
	b.t.Helper()
	_, err := b.c.Delete(b.t.Context(), b.dir+key)
	b.must(err)
}

func (b backdoor) forget() {
	b.t.Helper()
	resp, err := b.c.Get(b.t.Context(), b.dir)
	b.must(err)
	_, err = b.c.Compact(b.t.Context(), resp.Header.Revision)
	b.must(err)
}

func (b backdoor) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("back door: %v", err)
	}
}

// TestListMany lists 10,000 leases, which takes one round trip.
func TestListMany(t *testing.T) {
	t.Parallel()
	const leases, batch = 10000, 100 // etcd takes 128 operations a transaction
	srv := etcdserver.Start(t, etcdserver.Options{})
	r := openStore(t, srv.ClientConfig("/many"))
	count := &counter{}
	count.attach(r)
	c := srv.Client()
	for i := 0; i < leases; i += batch {
		ops := make([]clientv3.Op, 0, batch)
		for n := i; n < i+batch; n++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s10.%d.%d.0-24", r.cfg.LeaseDir(), n>>8, n&255),
				fmt.Sprintf(`{"PublicIP":"192.168.%d.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}`, n>>8, n&255)))
		}
		if _, err := c.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatalf("load leases: %v", err)
		}
	}
	if _, err := r.Config(t.Context()); err == nil {
		t.Fatal("Config: no error") // and the connection is up
	}
	before, start := count.requests(), time.Now()
	got, at, err := r.List(t.Context())
	took := time.Since(start)
	if err != nil || len(got) != leases || at.Rev < leases/batch {
		t.Fatalf("List = %d leases, revision %d, %v", len(got), at.Rev, err)
	}
	if n := count.requests() - before; n != 1 {
		t.Errorf("List took %d round trips", n)
	}
	t.Logf("listed %d leases in %v", leases, took)
	if r.BadCount() != 0 {
		t.Errorf("BadCount = %d", r.BadCount())
	}
}

// TestNewStartsNothing: no connection before the first call, even with a login.
func TestNewStartsNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
	}()
	r := openStore(t, etcd.ClientConfig{Endpoints: []string{l.Addr().String()}, Username: "u", Password: "p"})
	select {
	case <-accepted:
		t.Error("New has connected")
	default:
	}
	if _, err := r.Config(t.Context()); err == nil {
		t.Error("Config: no error")
	}
	<-accepted
	l.Close()
}

// TestPausedServer: calls to a server that stops answering fail at their time limit,
// and succeed again when it continues.
func TestPausedServer(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r := openStore(t, srv.ClientConfig("/net"))
	made, err := r.Create(t.Context(), lease("", ""), time.Hour)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	srv.Pause()
	r.timeout = testLimit
	for name, call := range map[string]func() error{
		"Config": func() error { _, err := r.Config(t.Context()); return err },
		"List":   func() error { _, _, err := r.List(t.Context()); return err },
		"Update": func() error { _, err := r.Update(t.Context(), made, made.Attrs, time.Hour); return err },
		"keepAlive": func() error {
			_, err := r.keepAlive(t.Context(), made, 1)
			return err
		},
		"Watch": func() error {
			return r.Watch(t.Context(), subnet.Position{Rev: made.Rev}, func(subnet.Rev, []subnet.Event) {})
		},
	} {
		if err := call(); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), srv.URL()) {
			t.Errorf("%s of a paused server: %v", name, err)
		}
	}
	srv.Resume()
	r.timeout = roundTripTimeout
	if _, err := r.Update(t.Context(), made, made.Attrs, time.Hour); err != nil {
		t.Errorf("Update of a resumed server: %v", err)
	}
}

// TestReasons: the error contains the reason of a failed connection.
func TestReasons(t *testing.T) {
	t.Parallel()
	tls := etcdserver.Start(t, etcdserver.Options{ClientCert: true})
	other := etcdserver.Start(t, etcdserver.Options{TLS: true})
	auth := etcdserver.Start(t, etcdserver.Options{User: "flannel", Password: "secret", Prefix: "/test"})
	for _, test := range []struct {
		name   string
		srv    *etcdserver.Server
		change func(*etcd.ClientConfig)
		want   string
	}{
		{"wrong CA", tls, func(c *etcd.ClientConfig) { c.CAFile = other.CAFile }, "certificate signed by unknown authority"},
		{"no client certificate", tls, func(c *etcd.ClientConfig) { c.CertFile, c.KeyFile = "", "" }, "Unavailable"},
		{"https to an http port", auth, func(c *etcd.ClientConfig) {
			c.Endpoints, c.CAFile = []string{strings.TrimPrefix(auth.URL(), "http://")}, tls.CAFile
		}, "handshake failed"},
		{"wrong password", auth, func(c *etcd.ClientConfig) { c.Password = "wrong-password" }, "look at -etcd-username=flannel and -etcd-password"},
		{"no user", auth, func(c *etcd.ClientConfig) { c.Username, c.Password = "", "" }, "it requires a user: -etcd-username"},
		{"foreign prefix", auth, func(c *etcd.ClientConfig) { c.Prefix = "/foreign" }, `user "flannel" needs a role with readwrite rights to all keys that begin with /foreign/`},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := test.srv.ClientConfig("/test")
			test.change(&cfg)
			r := openStore(t, cfg)
			_, _, err := r.List(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("List: %v, want %q in it", err, test.want)
			}
			err = r.Watch(t.Context(), subnet.Position{Rev: 1}, func(subnet.Rev, []subnet.Event) {})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Watch: %v, want %q in it", err, test.want)
			}
			if err != nil && cfg.Password != "" && strings.Contains(err.Error(), cfg.Password) {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

// TestLoginExpires: a token that etcd has discarded is replaced, for calls and for
// watches.
func TestLoginExpires(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{User: "flannel", Password: "secret", Prefix: "/net"})
	r := openStore(t, srv.ClientConfig("/net"))
	at, ended := watching(t, r, srv.Client())
	for _, token := range []string{"forgotten.1", ""} {
		r.login.token.Store(&token)
		if _, _, err := r.List(t.Context()); err != nil {
			t.Errorf("List with token %q: %v", token, err)
		}
	}
	forgotten := "forgotten.1"
	r.login.token.Store(&forgotten)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	at.Rev--
	err := r.Watch(ctx, at, func(subnet.Rev, []subnet.Event) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Watch with a forgotten token: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the first watch ended: %v", err)
	default:
	}
}

// TestLoginNotNeeded: an unneeded password does no harm.
func TestLoginNotNeeded(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	cfg := srv.ClientConfig("/net")
	cfg.Username, cfg.Password = "flannel", "secret"
	r := openStore(t, cfg)
	watching(t, r, srv.Client())
	if _, err := r.PublishConfig(t.Context(), []byte("{}")); err != nil {
		t.Errorf("PublishConfig: %v", err)
	}
}
