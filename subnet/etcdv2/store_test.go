package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// TestMain finds goroutines that Watch or Close leaves running.
func TestMain(m *testing.M) {
	// glog flushes its files for as long as the process lives.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// testLimit is the time limit of Stores that exceed it.
const testLimit = 300 * time.Millisecond

// nextPrefix gives each test a store of its own on a shared server.
var nextPrefix atomic.Int64

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance(t, etcdserver.Start(t, etcdserver.Options{V2: true}))
}

func TestConformanceTLSAuth(t *testing.T) {
	t.Parallel()
	conformance(t, etcdserver.Start(t, etcdserver.Options{V2: true, TLS: true, User: "flannel", Password: "secret", Prefix: "/test"}))
}

func conformance(t *testing.T, srv *etcdserver.Server) {
	open := func(t *testing.T) subnettest.Harness {
		r := openStore(t, srv.ClientConfig(fmt.Sprintf("/test/%d", nextPrefix.Add(1))))
		count := &counter{RoundTripper: r.transport}
		r.transport = count
		b := newBackdoor(t, r)
		return subnettest.Harness{
			Store: r, Requests: func() int { return int(count.n.Load()) },
			Put: b.put, Get: b.get, Delete: b.delete, Forget: b.forget,
			SetConfig:   func(config []byte) { b.write(r.cfg.ConfigKey(), config, 0) },
			Unreachable: unreachable, Silent: silent, Limit: testLimit,
		}
	}
	subnettest.Keyspace(t, open)
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
	return openStore(t, etcd.ClientConfig{Endpoints: []string{etcdserver.FreeAddr(t)}})
}

// silent returns a Store of a server that accepts connections and never answers.
func silent(t *testing.T) subnettest.Store {
	r := openStore(t, etcd.ClientConfig{Endpoints: []string{silentAddr(t)}})
	r.timeout = testLimit
	return r
}

func silentAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// counter counts round trips.
type counter struct {
	http.RoundTripper
	n atomic.Int64
}

func (c *counter) RoundTrip(req *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(req)
}

var lease, own = subnettest.Lease, subnettest.OwnLease

// TestLayout: keys and values are those of the contract, byte for byte.
func TestLayout(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	for prefix, test := range map[string]struct {
		l    subnet.Lease
		want string
	}{
		"coreos.com/network/": {lease("", ""), `{"PublicIP":"1.2.3.4"}`},
		"/v": {lease("vxlan", `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`),
			`{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}`},
		"/o": {own(""), `{"PublicIP":"1.2.3.4","NodeID":"00ff","Hostname":"one","DataPath":"kernel"}`},
		"/h": {lease("host-gw", ""), `{"PublicIP":"1.2.3.4","BackendType":"host-gw"}`},
	} {
		r := openStore(t, srv.ClientConfig(prefix))
		if _, err := r.Create(t.Context(), test.l, time.Hour); err != nil {
			t.Fatalf("Create: %v", err)
		}
		b := newBackdoor(t, r)
		b.dir = "/" + strings.Trim(prefix, "/") + "/subnets/"
		if v, hasTTL := b.get("10.5.52.0-24"); string(v) != test.want || !hasTTL {
			t.Errorf("value is %s, time limit: %v; want %s", v, hasTTL, test.want)
		}
	}
}

// TestIdleWait: the watch keeps up while only other keys change, more often than
// the server remembers.
func TestIdleWait(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	r := openStore(t, srv.ClientConfig("/net"))
	r.wait = 50 * time.Millisecond
	b := newBackdoor(t, r)
	_, at, err := r.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type delivery struct {
		rev    subnet.Rev
		events int
	}
	got, ended := make(chan delivery), make(chan error, 1)
	go func() {
		ended <- r.Watch(ctx, at, func(rev subnet.Rev, events []subnet.Event) {
			select {
			case got <- delivery{rev, len(events)}:
			case <-ctx.Done():
			}
		})
	}()
	last := at.Rev
	for round := 1; round <= 3; round++ {
		for n := 0; n < 600; n += 100 {
			var wg sync.WaitGroup
			for w := range 10 {
				wg.Go(func() {
					for range 10 {
						b.write(fmt.Sprintf("/test/elsewhere%d", w), []byte("x"), 0)
					}
				})
			}
			wg.Wait()
			want := last + 100
			for last < want {
				select {
				case d := <-got:
					if d.events != 0 || d.rev < last {
						t.Fatalf("delivered %+v after index %d", d, last)
					}
					last = d.rev
				case err := <-ended:
					t.Fatalf("Watch: %v", err)
				}
			}
		}
	}
	if _, err := r.Create(t.Context(), lease("", ""), time.Hour); err != nil {
		t.Fatalf("Create: %v", err)
	}
	for d := range got {
		if d.events == 1 {
			break
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
}

// TestDirectoryDeleted: all leases are gone at once, without an event for each.
func TestDirectoryDeleted(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	for _, dir := range []string{"/a/b/subnets", "/a/b", "/a"} {
		r := openStore(t, srv.ClientConfig("/a/b"))
		if _, err := r.Create(t.Context(), lease("", ""), time.Hour); err != nil {
			t.Fatalf("Create: %v", err)
		}
		_, at, err := r.List(t.Context())
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		newBackdoor(t, r).do(http.MethodDelete, dir+"?recursive=true", nil)
		err = r.Watch(t.Context(), at, func(now subnet.Rev, events []subnet.Event) {
			if now > at.Rev || len(events) > 0 { // else it is taken up, no more
				t.Errorf("at %d: %v", now, events)
			}
		})
		if !errors.Is(err, subnet.ErrCompacted) {
			t.Errorf("Watch over the deletion of %s: %v", dir, err)
		}
		if leases, _, err := r.List(t.Context()); err != nil || len(leases) != 0 {
			t.Errorf("List after the deletion of %s = %v, %v", dir, leases, err)
		}
	}
}

func TestNewStore(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	r := openStore(t, srv.ClientConfig("/net"))
	_, at, err := r.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	at.Rev += 1000
	err = r.Watch(t.Context(), at, func(rev subnet.Rev, events []subnet.Event) { t.Errorf("at %d: %v", rev, events) })
	if !errors.Is(err, subnet.ErrCompacted) {
		t.Errorf("Watch from the future: %v", err)
	}
}

// TestEndpoints: calls skip an unreachable endpoint, writes included. A write that
// may have taken effect is not repeated.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	dead := "http://" + etcdserver.FreeAddr(t)
	cfg := srv.ClientConfig("/net")
	cfg.Endpoints = []string{dead, srv.URL()}
	r := openStore(t, cfg)
	if _, err := r.Create(t.Context(), lease("", ""), time.Hour); err != nil {
		t.Errorf("Create with the first endpoint dead: %v", err)
	}
	if r.preferred.Load() != 1 {
		t.Error("the live endpoint is not preferred")
	}

	var writes atomic.Int64
	cutter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writes.Add(1)
		panic(http.ErrAbortHandler) // after it has taken the request
	}))
	defer cutter.Close()
	cfg.Endpoints = []string{cutter.URL, srv.URL()}
	r = openStore(t, cfg)
	l := lease("", "")
	l.Subnet = netip.MustParsePrefix("10.5.53.0/24")
	if _, err := r.Create(t.Context(), l, time.Hour); err == nil || errors.Is(err, subnet.ErrExists) {
		t.Errorf("Create that was cut off: %v", err)
	}
	if n := writes.Load(); n != 1 {
		t.Errorf("the write was sent %d times", n)
	}
	if v, _ := newBackdoor(t, openStore(t, srv.ClientConfig("/net"))).get("10.5.53.0-24"); v != nil {
		t.Errorf("the write went to the second endpoint too: %s", v)
	}
	r.preferred.Store(0)
	if leases, _, err := r.List(t.Context()); err != nil || len(leases) != 1 {
		t.Errorf("List, cut off at the first endpoint = %v, %v", leases, err)
	}
}

// TestReasons: the error contains the reason of a failed connection.
func TestReasons(t *testing.T) {
	t.Parallel()
	tls := etcdserver.Start(t, etcdserver.Options{V2: true, ClientCert: true})
	other := etcdserver.Start(t, etcdserver.Options{TLS: true})
	auth := etcdserver.Start(t, etcdserver.Options{V2: true, User: "flannel", Password: "secret", Prefix: "/test"})
	for _, test := range []struct {
		name   string
		srv    *etcdserver.Server
		change func(*etcd.ClientConfig)
		want   string
	}{
		{"wrong CA", tls, func(c *etcd.ClientConfig) { c.CAFile = other.CAFile }, "certificate signed by unknown authority"},
		{"wrong password", auth, func(c *etcd.ClientConfig) { c.Password = "wrong-password" }, "user authentication"},
		{"no user", auth, func(c *etcd.ClientConfig) { c.Username, c.Password = "", "" }, "user authentication"},
		{"foreign prefix", auth, func(c *etcd.ClientConfig) { c.Prefix = "/foreign" }, "user authentication"},
		{"no v2 API", other, func(*etcd.ClientConfig) {}, ErrNoAPI.Error()},
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
	if r := openStore(t, tls.ClientConfig("/test")); r != nil {
		if _, _, err := r.List(t.Context()); err != nil {
			t.Errorf("List with a client certificate: %v", err)
		}
	}
}
