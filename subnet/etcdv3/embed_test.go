package etcdv3

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coreos/flannel/subnet/embed"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// TestConformanceEmbedded runs the suite against the embedded etcd, which is years
// newer than Debian's.
func TestConformanceEmbedded(t *testing.T) {
	t.Parallel()
	srv, err := embed.New(embed.Config{Dir: t.TempDir(), Listen: etcdserver.FreeAddr(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-srv.Ready():
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	back, err := clientv3.New(clientv3.Config{Endpoints: []string{srv.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	conformance(t, back, func(prefix string) etcd.ClientConfig {
		return etcd.ClientConfig{Endpoints: []string{srv.Endpoint()}, Prefix: prefix}
	})
}
