package etcdv3

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// TestMain finds goroutines that Watch or Close leaves running.
func TestMain(m *testing.M) {
	// glog flushes its files for as long as the process lives.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// watching starts a Watch and returns when it has delivered an event.
func watching(t *testing.T, r *Store, back *clientv3.Client) (at subnet.Position, ended <-chan error) {
	t.Helper()
	_, at, err := r.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	revs, end := make(chan subnet.Rev, 10), make(chan error, 1)
	go func() {
		end <- r.Watch(t.Context(), at, func(rev subnet.Rev, events []subnet.Event) {
			if len(events) > 0 {
				revs <- rev
			}
		})
	}()
	if _, err := back.Put(t.Context(), r.cfg.LeaseDir()+"10.5.1.0-24", `{"PublicIP":"1.2.3.4"}`); err != nil {
		t.Fatal(err)
	}
	at.Rev = <-revs
	return at, end
}

// TestWatchOverRestart: the end of a server is an error. After its return, the store
// may have another history, until the leases are listed again.
func TestWatchOverRestart(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{User: "flannel", Password: "secret", Prefix: "/net"})
	r := openStore(t, srv.ClientConfig("/net"))
	at, ended := watching(t, r, srv.Client())
	srv.Stop()
	if err := <-ended; isAnswer(err) {
		t.Fatalf("Watch of a stopped server: %v", err)
	}
	if _, _, err := r.List(t.Context()); err == nil {
		t.Fatal("List of a stopped server: no error")
	}
	srv.Restart()
	if _, err := srv.Client().Put(t.Context(), r.cfg.LeaseDir()+"10.5.2.0-24", `{"PublicIP":"1.2.3.5"}`); err != nil {
		t.Fatal(err)
	}
	// The restart discarded the login; the Store logs in again.
	wantCompacted(t, r, at)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	leases, at, err := r.List(ctx)
	if err != nil || len(leases) != 2 {
		t.Errorf("List after the restart: %v, %v", leases, err)
	}
	err = r.Watch(ctx, at, func(subnet.Rev, []subnet.Event) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Watch after the restart: %v", err)
	}
}

func isAnswer(err error) bool { return err == nil || errors.Is(err, subnet.ErrCompacted) }

// TestWatchNewStore: a new store would deliver nothing until it reaches the old
// one's revision.
func TestWatchNewStore(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r := openStore(t, srv.ClientConfig("/net"))
	at, ended := watching(t, r, srv.Client())
	srv.Wipe()
	if err := <-ended; isAnswer(err) {
		t.Fatalf("Watch of a stopped server: %v", err)
	}
	srv.Restart()
	wantCompacted(t, r, at)
}

// wantCompacted watches from at, which is of another history than the store's, as
// soon as the store answers.
func wantCompacted(t *testing.T, r *Store, at subnet.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		err := r.Watch(ctx, at, func(rev subnet.Rev, events []subnet.Event) {
			t.Errorf("at revision %d: %v", rev, events)
		})
		if errors.Is(err, subnet.ErrCompacted) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the new history was taken for the old one: %v", err)
		}
		t.Logf("not yet: %v", err)
	}
}

// TestWatchOvertakenStore: a new store that has passed the old one's revision has
// changes without events.
func TestWatchOvertakenStore(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	srv.Restart() // an election, as every cluster in use has had
	r := openStore(t, srv.ClientConfig("/net"))
	at, ended := watching(t, r, srv.Client())
	srv.Wipe()
	if err := <-ended; isAnswer(err) {
		t.Fatalf("Watch of a stopped server: %v", err)
	}
	srv.Restart()
	for next := subnet.Rev(0); next <= at.Rev; {
		resp, err := srv.Client().Put(t.Context(), "/elsewhere", "")
		if err != nil {
			t.Fatal(err)
		}
		next = subnet.Rev(resp.Header.Revision)
	}
	wantCompacted(t, r, at)
}

// TestWatchHalfOpen: a dead server with an open connection is detected by the
// missing answer to a heartbeat, without gRPC's own pings. The next watch uses a
// new connection.
func TestWatchHalfOpen(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r := openStore(t, srv.ClientConfig("/net"))
	r.client.DialKeepAliveTime = 0
	at, ended := watching(t, r, srv.Client())
	before, err := r.connection()
	if err != nil {
		t.Fatal(err)
	}
	srv.Pause()
	if err := <-ended; !errors.Is(err, errSilent) {
		t.Errorf("Watch of a dead server: %v", err)
	}
	if limit := r.heartbeat.timing.Timeout(); limit != 2*etcd.HeartbeatTimeout {
		t.Errorf("limit after a missing answer: %v, want %v", limit, 2*etcd.HeartbeatTimeout)
	}
	srv.Resume()
	for {
		if _, _, err = r.List(t.Context()); err == nil {
			break
		}
		t.Logf("not yet: %v", err)
	}
	if after, err := r.connection(); err != nil || after == before {
		t.Errorf("connection = %p, %v; want another than %p", after, err, before)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go r.Watch(ctx, at, func(subnet.Rev, []subnet.Event) {})    //nolint:errcheck // ends with ctx
	for r.heartbeat.timing.Timeout() != etcd.HeartbeatTimeout { // until one is answered
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("no heartbeat is answered after the server's return")
		}
	}
}

// TestReadRevisions: the revision to resume at after a response.
func TestReadRevisions(t *testing.T) {
	r := openStore(t, etcd.ClientConfig{Endpoints: []string{"127.0.0.1:1"}, Prefix: "/net"})
	put := func(rev int64) *clientv3.Event {
		return &clientv3.Event{Type: clientv3.EventTypePut, Kv: kv("/net/subnets/10.5.1.0-24", `{"PublicIP":"1.2.3.4"}`, rev)}
	}
	for _, test := range []struct {
		name   string
		resp   clientv3.WatchResponse
		want   subnet.Rev
		events int
		err    error
	}{
		{name: "events, with the server ahead of them", want: 12, events: 2,
			resp: clientv3.WatchResponse{Header: header(50), Events: []*clientv3.Event{put(11), put(12)}}},
		{name: "progress", resp: clientv3.WatchResponse{Header: header(50)}, want: 50},
		{name: "created", resp: clientv3.WatchResponse{Header: header(50), Created: true}, want: 10},
		{name: "created, in a store that is younger", resp: clientv3.WatchResponse{Header: header(3), Created: true}, err: subnet.ErrCompacted},
		{name: "progress, of a store that is younger", resp: clientv3.WatchResponse{Header: header(3)}, err: subnet.ErrCompacted},
		{name: "compacted", resp: clientv3.WatchResponse{Header: header(50), CompactRevision: 20, Canceled: true}, err: subnet.ErrCompacted},
	} {
		t.Run(test.name, func(t *testing.T) {
			rev, events, err := r.read(10, test.resp)
			if !errors.Is(err, test.err) || rev != test.want || len(events) != test.events {
				t.Errorf("read = %d, %v, %v", rev, events, err)
			}
		})
	}
}

func header(rev int64) *etcdserverpb.ResponseHeader {
	return &etcdserverpb.ResponseHeader{Revision: rev}
}

// TestWatchSilent: a server that accepts the connection never confirms the watch.
func TestWatchSilent(t *testing.T) {
	t.Parallel()
	r := silent(t)
	start := time.Now()
	err := r.Watch(t.Context(), subnet.Position{Rev: 1}, func(subnet.Rev, []subnet.Event) {})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Watch: %v after %v", err, time.Since(start))
	}
}

func kv(key, value string, rev int64) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: rev}
}
