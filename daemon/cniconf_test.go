package daemon

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/cni/conflist"
	"github.com/coreos/flannel/subnet"
)

// The container engine gets its configuration with the first network, keeps it when
// the daemon ends, and loses it with the lease. A start without subnet.env takes it
// away, until the host has a network again.
func TestCNIConf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		dir := t.TempDir()
		source, path := filepath.Join(dir, "cni-conf.json"), filepath.Join(dir, conflist.FileName)
		for _, file := range []string{source, path} { // the second is from before a reboot
			if err := os.WriteFile(file, []byte(`{"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "flannel"}]}`), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		published := func() bool {
			synctest.Wait()
			_, err := os.Stat(path)
			return err == nil
		}
		r.reporter.cniConf = conflist.New(source, dir)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.reporter.cniConf.Run(ctx) }()
		withdrawStale(r.reporter.cniConf, r.options)
		if published() {
			t.Error("there is a configuration without subnet.env")
		}
		m := r.join()
		s := r.supervise(m)
		if r.network() == nil || !published() {
			t.Fatal("there is no configuration with the network")
		}
		s.end(t)
		withdrawStale(r.reporter.cniConf, r.options) // the next start
		if !published() {
			t.Error("a restart takes the configuration away")
		}
		m = r.join()
		s = r.supervise(m)
		l := r.stored(m.lease.Subnet)
		another := l.Attrs
		another.PublicIP, another.NodeID = netip.MustParseAddr("192.0.2.99"), "another"
		if _, err := r.store.Update(t.Context(), l, another, 24*time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := <-s.ended; !errors.Is(err, subnet.ErrLost) {
			t.Fatalf("the run ends with %v", err)
		}
		if published() {
			t.Error("there is a configuration without a lease")
		}
	})
}

func TestCNIConfFlags(t *testing.T) {
	for _, args := range [][]string{{"-cni-conf-dir=/etc/cni/net.d"}, {"-cni-conf=/a", "-cni-conf-dir="}, {"-cni-conf=/a", "-cni-conf-dir=net.d"}} {
		if _, err := ParseOptions(args, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
