package store

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
	"github.com/coreos/flannel/subnet/subnettest/faultproxy"
)

// settled is how long a host may take to notice, after it can reach the store, that
// another one has its subnet.
const settled = 5 * time.Second

const ownerConfig = `{"Network": "10.5.0.0/16"}`

var hostSubnet = netip.MustParsePrefix("10.5.7.0/24")

// startProxy runs a proxy in front of srv.
func startProxy(t *testing.T, srv *etcdserver.Server) (*faultproxy.Proxy, etcd.ClientConfig) {
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
	return p, etcd.ClientConfig{Endpoints: []string{"http://" + listen}, Prefix: "/net"}
}

func open(t *testing.T, cfg etcd.ClientConfig, api string) (Store, subnet.Keyspace) {
	t.Helper()
	s, err := Open(t.Context(), Config{ClientConfig: cfg, API: api, Publish: []byte(ownerConfig)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, s.Source.(subnet.Keyspace)
}

// While a host cannot reach the store, that loses its data or gets former ones back,
// and another host takes the subnet. The first one notices as soon as it reaches the
// store, whatever the headers of the answers have in common.
func TestOneOwnerInAnotherHistory(t *testing.T) {
	for _, api := range []string{API3, API2} {
		for name, fault := range map[string]func(srv *etcdserver.Server, copied string){
			"wiped":                                func(srv *etcdserver.Server, _ string) { srv.Wipe() },
			"a copy, in the same cluster and term": func(srv *etcdserver.Server, copied string) { srv.PutBack(copied) },
		} {
			for _, ahead := range []subnet.Rev{0, 20} {
				t.Run(api+" "+name+map[subnet.Rev]string{0: ", equal revision", 20: ", later revision"}[ahead], func(t *testing.T) {
					t.Parallel()
					srv := etcdserver.Start(t, etcdserver.Options{V2: api == API2})
					open(t, srv.ClientConfig("/net"), api) // publishes
					copied := srv.Copy()
					srv.Restart() // another term, as the copy will have
					_, direct := open(t, srv.ClientConfig("/net"), api)
					proxy, cfg := startProxy(t, srv)
					s, _ := open(t, cfg, api)
					config, err := subnet.ParseConfig([]byte(ownerConfig))
					if err != nil {
						t.Fatal(err)
					}
					m := s.NewManager(config, 24*time.Hour, subnet.Timing{RenewMargin: time.Hour})
					ours := subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1"), Extras: subnet.Extras{NodeID: "a"}}
					fill(t, direct, 30)
					l, err := m.Acquire(t.Context(), ours, subnet.Hints{Previous: hostSubnet})
					if err != nil || l.Subnet != hostSubnet {
						t.Fatalf("Acquire: %v, %v", l, err)
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					ended, watched := make(chan error, 1), make(chan error, 1)
					synced := make(chan struct{}, 100)
					go func() { ended <- m.Renew(ctx, l) }()
					go func() { watched <- m.Watch(ctx, l, func([]subnet.Event) { synced <- struct{}{} }) }()
					<-synced

					proxy.Set(faultproxy.Fault{HoldUp: true, HoldDown: true})
					fault(srv, copied)
					srv.Restart()
					_, direct = open(t, srv.ClientConfig("/net"), api)
					fill(t, direct, l.Rev-1+ahead)
					theirs, err := direct.Create(t.Context(), subnet.Lease{Subnet: hostSubnet,
						Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.2"), Extras: subnet.Extras{NodeID: "b"}}}, time.Hour)
					if err != nil || ahead == 0 && theirs.Rev != l.Rev {
						t.Fatalf("the other host's lease is %+v, %v; ours was %+v", theirs, err, l)
					}
					proxy.Set(faultproxy.Fault{})
					began := time.Now()
					select {
					case err := <-ended:
						if !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), "192.0.2.2") {
							t.Errorf("Renew ended with %v, want ErrLost", err)
						}
						t.Logf("noticed after %v", time.Since(began))
					case <-time.After(2 * settled):
						t.Error("two hosts hold the subnet")
					}
					if now, err := direct.Get(t.Context(), theirs); err != nil || !now.StoredAs(theirs) {
						t.Errorf("the other host's lease became %+v, %v", now, err)
					}
					cancel()
					<-watched
				})
			}
		}
	}
}

// fill makes changes of other keys until the store is at rev.
func fill(t *testing.T, k subnet.Keyspace, rev subnet.Rev) {
	t.Helper()
	filler := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.99.0/24"), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.99")}}
	for {
		_, at, err := k.List(t.Context())
		switch {
		case err != nil:
			t.Fatal(err)
		case at.Rev >= rev:
			if at.Rev > rev {
				t.Fatalf("the store is at %d, beyond %d", at.Rev, rev)
			}
			return
		}
		if _, err := k.Create(t.Context(), filler, time.Hour); err != nil {
			l, err := k.Get(t.Context(), filler)
			if err != nil {
				t.Fatal(err)
			}
			if err = k.Delete(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}
	}
}
