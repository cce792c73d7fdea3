package etcdv3

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// A full etcd refuses a new lease with a remedy, and renews existing ones. After
// the remedy everything works.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{Args: []string{"--quota-backend-bytes=1048576"}})
	r, c := openStore(t, srv.ClientConfig("/net")), srv.Client()
	attrs := subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1")}
	made, err := r.Create(t.Context(), subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Attrs: attrs}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var rev int64
	for n := 0; ; n++ {
		resp, err := c.Put(t.Context(), "/ballast", strings.Repeat("x", 100_000))
		if errors.Is(err, rpctypes.ErrNoSpace) {
			break
		}
		if err != nil || n > 1000 {
			t.Fatalf("fill etcd, write %d: %v", n, err)
		}
		rev = resp.Header.Revision
	}
	other := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.2.0/24"), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.2")}}
	if _, err := r.Create(t.Context(), other, time.Hour); err == nil || !strings.Contains(err.Error(), "etcdctl alarm disarm") {
		t.Errorf("Create: %v, want how to make room", err)
	}
	if _, err := r.Update(t.Context(), made, made.Attrs, time.Hour); err != nil {
		t.Errorf("Update: %v, want a lease that exists renewed", err)
	}
	if _, err := c.Compact(t.Context(), rev, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Defragment(t.Context(), srv.URL()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), other, time.Hour); err != nil {
		t.Errorf("Create after room was made: %v", err)
	}
}
