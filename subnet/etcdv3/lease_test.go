package etcdv3

import (
	"context"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

func lease(typ, data string) subnet.Lease {
	l := subnet.Lease{
		Subnet: netip.MustParsePrefix("10.5.52.0/24"),
		Attrs:  subnet.Attrs{PublicIP: netip.MustParseAddr("1.2.3.4"), BackendType: typ},
	}
	if data != "" {
		l.Attrs.BackendData = json.RawMessage(data)
	}
	return l
}

// TestLayout: keys and values are those of the contract, to the byte.
func TestLayout(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	c := srv.Client()
	for _, test := range []struct {
		prefix string
		l      subnet.Lease
		want   string
	}{
		{"coreos.com/network/", lease("", ""), `{"PublicIP":"1.2.3.4","PublicIPv6":null}`},
		{"/v", lease("vxlan", `{"VNI":1, "VtepMAC":"c6:d2:32:6f:8f:44"}`),
			`{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}`},
		{"/h", lease("host-gw", ""), `{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"host-gw"}`},
		{"/w", lease("wireguard", `{"PublicKey":"a+b/c=","Port":51820}`),
			`{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"a+b/c=","Port":51820}}`},
		{"/", lease("", ""), `{"PublicIP":"1.2.3.4","PublicIPv6":null}`},
	} {
		r := open(t, srv.StoreConfig(test.prefix))
		made, err := r.Create(t.Context(), test.l, time.Hour)
		if err != nil {
			t.Fatalf("Create: %v", err)
		}
		key := map[string]string{"/": "", "coreos.com/network/": "/coreos.com/network"}[test.prefix]
		if key == "" && test.prefix != "/" {
			key = test.prefix
		}
		key += "/subnets/10.5.52.0-24"
		resp, err := c.Get(t.Context(), key)
		if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != test.want {
			t.Errorf("%s = %v, %v; want %s", key, resp.Kvs, err, test.want)
		}
		// A renewal is none the less quiet if our own spelling is another.
		renewed, err := r.Update(t.Context(), made, time.Hour)
		if err != nil || renewed.Rev != made.Rev {
			t.Errorf("Update = %+v, %v; want revision %d", renewed, err, made.Rev)
		}
	}
}

// leases is how many etcd leases the server has.
func leases(t *testing.T, c *clientv3.Client) int {
	t.Helper()
	resp, err := c.Leases(t.Context())
	if err != nil {
		t.Fatalf("Leases: %v", err)
	}
	return len(resp.Leases)
}

func TestRefusedWriteLeavesNoEtcdLease(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r, c := open(t, srv.StoreConfig("/net")), srv.Client()
	made, err := r.Create(t.Context(), lease("", ""), time.Hour)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	if _, err := r.Create(t.Context(), lease("", ""), time.Hour); err == nil {
		t.Error("second Create: no error")
	}
	if n := leases(t, c); n != 1 {
		t.Errorf("%d etcd leases after a refused Create, want 1", n)
	}
	// The write between Update's look and its own write.
	kv, err := r.stored(t.Context(), made)
	if err != nil {
		t.Fatalf("stored: %v", err)
	}
	if _, err := c.Put(t.Context(), r.key(made), "{}", clientv3.WithIgnoreLease()); err != nil {
		t.Fatal(err)
	}
	g, err := r.grant(t.Context(), time.Hour)
	if err != nil {
		t.Fatalf("grant: %v", err)
	}
	if _, err := r.replace(t.Context(), kv, []byte("{}"), g.id); err == nil {
		t.Error("replace over another's write: no error")
	}
	if n := leases(t, c); n != 1 {
		t.Errorf("%d etcd leases after a refused Update, want 1", n)
	}
	if resp, err := c.Get(t.Context(), r.key(made)); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("the key is gone: %v", err)
	}
}

// TestCutWriteKeepsEtcdLease: where a write's outcome is not known, its lease
// must stay, because the key may hang on it.
func TestCutWriteKeepsEtcdLease(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r, c := open(t, srv.StoreConfig("/net")), srv.Client()
	g, err := r.grant(t.Context(), time.Hour)
	if err != nil {
		t.Fatalf("grant: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	key := r.key(lease("", ""))
	if _, err := r.put(ctx, key, []byte("{}"), absent(key), g.id); err == nil {
		t.Error("put: no error")
	}
	if n := leases(t, c); n != 1 {
		t.Errorf("%d etcd leases, want 1", n)
	}
}

// TestChangedTTL: a lease granted for another time moves to a new etcd lease at
// the next renewal, and then is quiet again.
func TestChangedTTL(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r, c := open(t, srv.StoreConfig("/net")), srv.Client()
	l, err := r.Create(t.Context(), lease("", ""), time.Hour)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	for _, ttl := range []time.Duration{2 * time.Hour, 30 * time.Minute} {
		moved, err := r.Update(t.Context(), l, ttl)
		if err != nil || moved.Rev <= l.Rev {
			t.Fatalf("Update to %v = %+v, %v; want a revision after %d", ttl, moved, err, l.Rev)
		}
		resp, err := c.Get(t.Context(), r.key(l))
		if err != nil {
			t.Fatal(err)
		}
		live, err := c.TimeToLive(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease))
		if err != nil || live.GrantedTTL != seconds(ttl) {
			t.Errorf("the key's etcd lease is %+v, %v; want %v", live, err, ttl)
		}
		quiet, err := r.Update(t.Context(), moved, ttl)
		if err != nil || quiet.Rev != moved.Rev {
			t.Errorf("second Update to %v = %+v, %v; want revision %d", ttl, quiet, err, moved.Rev)
		}
		l = quiet
	}
}

// TestClampedTTL: what the server does not grant is not asked for with a write.
func TestClampedTTL(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{Args: []string{"--election-timeout=1500"}})
	r, c := open(t, srv.StoreConfig("/net")), srv.Client()
	before := time.Now()
	l, err := r.Create(t.Context(), lease("", ""), time.Second)
	if err != nil || l.Expiration.Before(before.Add(2*time.Second)) {
		t.Fatalf("Create = %v, %v; want the server's time", l.Expiration, err)
	}
	renewed, err := r.Update(t.Context(), l, time.Second)
	if err != nil || renewed.Rev != l.Rev || !renewed.Expiration.After(l.Expiration) {
		t.Errorf("Update = %+v, %v; want revision %d and a later end", renewed, err, l.Rev)
	}
	if n := leases(t, c); n != 1 {
		t.Errorf("%d etcd leases, want 1", n)
	}
}

func TestSeconds(t *testing.T) {
	for ttl, want := range map[time.Duration]int64{
		0: 1, time.Nanosecond: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Minute: 5400,
	} {
		if got := seconds(ttl); got != want {
			t.Errorf("seconds(%v) = %d, want %d", ttl, got, want)
		}
	}
}
