package etcdv3

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

var lease, own = subnettest.Lease, subnettest.OwnLease

// ipv6 returns l with an IPv6 part.
func ipv6(l subnet.Lease, data string) subnet.Lease {
	l.IPv6Subnet = netip.MustParsePrefix("fd00:5:0:55::/64")
	l.Attrs.SetFamily(inet.IPv6, netip.MustParseAddr("fd00:9::1"), []byte(data))
	return l
}

// ipv6Only returns l without its IPv4 part.
func ipv6Only(l subnet.Lease) subnet.Lease {
	l.Subnet = netip.Prefix{}
	l.Attrs.SetFamily(inet.IPv4, netip.Addr{}, nil)
	return l
}

// TestLayout: keys and values are those of the contract, byte for byte.
func TestLayout(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	c := srv.Client()
	ipv6Keys := map[string]string{"/d": "10.5.52.0-24&fd00:5:0:55::-64", "/dh": "10.5.52.0-24&fd00:5:0:55::-64", "/6": "0.0.0.0-0&fd00:5:0:55::-64"}
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
		{"/o", own(""), `{"PublicIP":"1.2.3.4","PublicIPv6":null,"NodeID":"00ff","Hostname":"one","DataPath":"kernel"}`},
		{"/t", own("host-gw"), `{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"host-gw","NodeID":"00ff","Hostname":"one","DataPath":"kernel"}`},
		{"/", lease("", ""), `{"PublicIP":"1.2.3.4","PublicIPv6":null}`},
		{"/d", ipv6(lease("vxlan", `{"VNI":1}`), `{"VNI":1, "VtepMAC":"96:12:98:01:86:c7"}`),
			`{"PublicIP":"1.2.3.4","PublicIPv6":"fd00:9::1","BackendType":"vxlan","BackendData":{"VNI":1},"BackendV6Data":{"VNI":1,"VtepMAC":"96:12:98:01:86:c7"}}`},
		{"/dh", ipv6(lease("host-gw", ""), ""), `{"PublicIP":"1.2.3.4","PublicIPv6":"fd00:9::1","BackendType":"host-gw"}`},
		{"/6", ipv6Only(ipv6(lease("vxlan", ""), `{"VNI":1}`)), `{"PublicIP":"0.0.0.0","PublicIPv6":"fd00:9::1","BackendType":"vxlan","BackendV6Data":{"VNI":1}}`},
	} {
		r := openStore(t, srv.ClientConfig(test.prefix))
		made, err := r.Create(t.Context(), test.l, time.Hour)
		if err != nil {
			t.Fatalf("Create: %v", err)
		}
		key := map[string]string{"/": "", "coreos.com/network/": "/coreos.com/network"}[test.prefix]
		if key == "" && test.prefix != "/" {
			key = test.prefix
		}
		key += "/subnets/" + cmp.Or(ipv6Keys[test.prefix], "10.5.52.0-24")
		resp, err := c.Get(t.Context(), key)
		if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != test.want {
			t.Errorf("%s = %v, %v; want %s", key, resp.Kvs, err, test.want)
		}
		// A renewal is quiet even if our own spelling differs.
		renewed, err := r.Update(t.Context(), made, made.Attrs, time.Hour)
		if err != nil || renewed.Rev != made.Rev {
			t.Errorf("Update = %+v, %v; want revision %d", renewed, err, made.Rev)
		}
	}
}

// leases returns the number of the server's etcd leases.
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
	r, c := openStore(t, srv.ClientConfig("/net")), srv.Client()
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
	// A write between Update's read and its write.
	kv, err := r.unchanged(t.Context(), made)
	if err != nil {
		t.Fatalf("unchanged: %v", err)
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

// TestCutWriteKeepsEtcdLease: if the answer to a write is lost, its etcd lease must
// stay, as the key may be attached to it.
func TestCutWriteKeepsEtcdLease(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r, c := openStore(t, srv.ClientConfig("/net")), srv.Client()
	cut := true
	r.client.DialOptions = append(r.client.DialOptions, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, cc, opts...)
			if err == nil && cut && strings.HasSuffix(method, "/Txn") {
				return status.Error(codes.Unavailable, "connection is cut")
			}
			return err
		}))
	l := lease("", "")
	_, err := r.Create(t.Context(), l, time.Hour)
	if err == nil || errors.Is(err, subnet.ErrExists) {
		t.Fatalf("Create with a lost answer: %v", err)
	}
	if n := leases(t, c); n != 1 {
		t.Errorf("after Create: %d etcd leases, want 1", n)
	}
	found, _, err := r.List(t.Context())
	if err != nil || len(found) != 1 || found[0].Reserved {
		t.Fatalf("List = %v, %v; want what Create wrote", found, err)
	}
	changed := found[0].Attrs
	changed.PublicIP = netip.MustParseAddr("1.2.3.5")
	if _, err := r.Update(t.Context(), found[0], changed, time.Hour); err == nil || errors.Is(err, subnet.ErrConflict) {
		t.Fatalf("Update with a lost answer: %v", err)
	}
	if found, _, err = r.List(t.Context()); err != nil || len(found) != 1 || !found[0].Attrs.Equal(changed) {
		t.Errorf("List = %v, %v; want what Update wrote", found, err)
	}
	cut = false
	if _, err := r.Update(t.Context(), found[0], found[0].Attrs, time.Hour); err != nil {
		t.Errorf("Update of what was found: %v", err)
	}
}

// TestChangedTTL: a lease with another TTL moves to a new etcd lease at the next
// renewal. Further renewals are quiet.
func TestChangedTTL(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r, c := openStore(t, srv.ClientConfig("/net")), srv.Client()
	l, err := r.Create(t.Context(), lease("", ""), time.Hour)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	for _, ttl := range []time.Duration{2 * time.Hour, 30 * time.Minute} {
		moved, err := r.Update(t.Context(), l, l.Attrs, ttl)
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
		quiet, err := r.Update(t.Context(), moved, moved.Attrs, ttl)
		if err != nil || quiet.Rev != moved.Rev {
			t.Errorf("second Update to %v = %+v, %v; want revision %d", ttl, quiet, err, moved.Rev)
		}
		l = quiet
	}
}

// TestClampedTTL: if the server does not grant the TTL, renewals write nothing.
func TestClampedTTL(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{Args: []string{"--election-timeout=1500"}})
	r, c := openStore(t, srv.ClientConfig("/net")), srv.Client()
	before := time.Now()
	l, err := r.Create(t.Context(), lease("", ""), time.Second)
	if err != nil || l.Expiration.Before(before.Add(2*time.Second)) {
		t.Fatalf("Create = %v, %v; want the server's time", l.Expiration, err)
	}
	renewed, err := r.Update(t.Context(), l, l.Attrs, time.Second)
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
