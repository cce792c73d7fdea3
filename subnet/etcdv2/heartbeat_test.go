package etcdv2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
	"github.com/coreos/flannel/subnet/subnettest/faultproxy"
)

// heartbeatTime is the time in which a heartbeat must detect a dead wait, on a slow
// machine. The time limit of waits, a minute, is extended beyond it.
const heartbeatTime = 30 * time.Second

// throughProxy returns a Store whose connections can be broken, and its proxy.
func throughProxy(t *testing.T, srv *etcdserver.Server) (*Store, *faultproxy.Proxy) {
	t.Helper()
	listen := etcdserver.FreeAddr(t)
	p := faultproxy.New(faultproxy.Config{
		Listen: func(ctx context.Context) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", listen)
		},
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(srv.URL(), "http://"))
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("proxy: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); run.Wait() })
	r := openStore(t, etcd.ClientConfig{Endpoints: []string{"http://" + listen}, Prefix: "/net"})
	r.wait = time.Hour
	return r, p
}

// waits reports each wait that a server has accepted.
type waits struct {
	http.RoundTripper
	taken chan struct{}
}

func (w *waits) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.RoundTripper.RoundTrip(req)
	if err == nil && req.URL.Query().Get("wait") == "true" {
		w.taken <- struct{}{}
	}
	return resp, err
}

// TestWaitHalfOpen: a wait on a connection whose other end vanished silently is
// given up. The next wait delivers the changes of the meantime.
func TestWaitHalfOpen(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	r, proxy := throughProxy(t, srv)
	waits := &waits{RoundTripper: r.transport, taken: make(chan struct{}, 10)}
	r.transport = waits
	b := newBackdoor(t, openStore(t, srv.ClientConfig("/net")))
	var at subnet.Position
	for {
		var err error
		if _, at, err = r.List(t.Context()); err == nil {
			break
		}
		t.Logf("not yet: %v", err) // the proxy does not listen yet
	}
	ctx, cancel := context.WithTimeout(t.Context(), heartbeatTime)
	defer cancel()
	told, ended := make(chan string, 10), make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			err := r.Watch(ctx, at, func(now subnet.Rev, events []subnet.Event) {
				at.Rev = now
				for _, e := range events {
					told <- e.Lease.Key()
				}
			})
			t.Logf("watch: %v", err)
		}
	}()
	for _, key := range []string{"10.5.1.0-24", "10.5.2.0-24"} {
		select {
		case <-waits.taken: // by a server that hears us, or it begins anew
		case <-ctx.Done():
			t.Fatal("no wait is taken up")
		}
		if key != "10.5.1.0-24" {
			proxy.HalfOpen()
		}
		b.write(r.cfg.LeaseDir()+key, []byte(`{"PublicIP":"1.2.3.4"}`), 0)
		select {
		case got := <-told:
			if got != key {
				t.Errorf("told of %s, want %s", got, key)
			}
		case <-ctx.Done():
			t.Fatalf("never told of %s", key)
		}
	}
	cancel()
	<-ended
}

// TestWaitSilent: a server that has stopped answering is detected.
func TestWaitSilent(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	r := openStore(t, srv.ClientConfig("/net"))
	r.wait = time.Hour
	_, at, err := r.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), heartbeatTime)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.Watch(ctx, at, func(subnet.Rev, []subnet.Event) {}) }()
	newBackdoor(t, r).write("/elsewhere", []byte("x"), 0) // the wait is under way, or will be
	srv.Pause()
	if err := <-ended; !errors.Is(err, errSilent) && !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("Watch of a dead server: %v", err)
	}
	srv.Resume()
}

// calmStore answers like a server without changes, and counts the waits.
type calmStore struct{ waits, beats int }

func (s *calmStore) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"X-Etcd-Index": {"7"}}, Request: req}
	if req.URL.Query().Get("wait") != "true" {
		s.beats++
		resp.Body = io.NopCloser(strings.NewReader(`{"action":"get","node":{"key":"/net/config","value":"{}"}}`))
		return resp, nil
	}
	s.waits++
	body, end := io.Pipe()
	context.AfterFunc(req.Context(), func() { end.CloseWithError(req.Context().Err()) })
	resp.Body = body
	return resp, nil
}

// TestCalmWait: without changes, heartbeats do not restart a wait; each new wait
// would use a new connection.
func TestCalmWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := openStore(t, etcd.ClientConfig{Endpoints: []string{"http://192.0.2.1:2379"}, Prefix: "/net"}), &calmStore{}
		r.transport = store
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		if err := r.Watch(ctx, subnet.Position{Rev: 7}, func(subnet.Rev, []subnet.Event) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Watch: %v", err)
		}
		synctest.Wait()
		if store.waits != 1 || store.beats < 10 {
			t.Errorf("%d waits and %d heartbeats in 50 s, want one wait and a heartbeat every 2 s", store.waits, store.beats)
		}
	})
}
