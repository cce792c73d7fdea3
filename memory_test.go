package main

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/state"
	"github.com/coreos/flannel/subnet"
)

// What is remembered is of one network in one store; it is of no use to a
// daemon of another, and gone once the lease is another host's.
func TestRecall(t *testing.T) {
	dir := t.TempDir()
	daemonOf := func(args ...string) *daemon {
		return newDaemon(parse(t, append([]string{"-state-dir=" + dir, "-etcd-endpoints=http://192.0.2.1:2379"}, args...)...))
	}
	d := daemonOf()
	ours := netip.MustParseAddr("192.0.2.10")
	if err := state.Write(d.memoryFile(), memory{
		Prefix: d.options.store.Prefix, Endpoints: d.options.store.Endpoints, API: "3",
		Lease: subnet.Lease{Subnet: netip.MustParsePrefix("10.5.7.0/24"), Attrs: subnet.Attrs{PublicIP: ours}, Expiration: time.Now().Add(time.Hour)},
	}); err != nil {
		t.Fatal(err)
	}
	if !d.recall().holds(ours, time.Now()) {
		t.Error("the same daemon does not recall its lease")
	}
	for name, other := range map[string]*daemon{
		"prefix":    daemonOf("-etcd-prefix=/other"),
		"endpoints": daemonOf("-etcd-endpoints=http://192.0.2.2:2379"),
		"API":       daemonOf("-etcd-api=2"),
	} {
		if other.recall() != nil {
			t.Errorf("a daemon with another %s recalls the lease", name)
		}
	}
	if daemonOf("-etcd-api=3").recall() == nil {
		t.Error("a daemon that names the same API recalls nothing")
	}
	if err := errors.Join(d.forget(), d.forget()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.memoryFile()); !errors.Is(err, fs.ErrNotExist) || d.recall() != nil {
		t.Errorf("the lost lease is still remembered: %v", err)
	}
}
