package daemon

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// A daemon whose context has ended ends all its tasks, and leaves no socket.
func TestRunEndsWithItsContext(t *testing.T) {
	t.Setenv("GOGC", "100")
	t.Setenv(notifyVariable, "")
	dir := t.TempDir()
	d := New(parse(t, "-state-dir="+dir+"/state", "-subnet-file="+dir+"/subnet.env", "-status-addr="), "test", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	if d.WasReady() {
		t.Error("ready")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// An embedded etcd that cannot be is an error before anything starts.
func TestRunChecksTheEmbeddedEtcd(t *testing.T) {
	dir := t.TempDir()
	o := parse(t, "-state-dir="+dir, "-subnet-file="+dir+"/subnet.env", "-etcd-embed", "-etcd-embed-listen=nowhere")
	if err := New(o, "test", nil).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "-etcd-embed-listen") {
		t.Errorf("Run = %v", err)
	}
}

// With -etcd-embed, the embedded etcd is the store.
func TestEmbeddedEtcdIsTheStore(t *testing.T) {
	o := parse(t, "-state-dir="+t.TempDir(), "-etcd-embed", "-etcd-embed-listen=127.0.0.1:2399")
	etcd, err := newEmbeddedEtcd(o)
	if err != nil {
		t.Fatal(err)
	}
	o.useStore(etcd.Endpoint())
	if len(o.store.Endpoints) != 1 || o.store.Endpoints[0] != etcd.Endpoint() || o.store.API != "3" {
		t.Errorf("the store is %+v", o.store.Config())
	}
	if etcd, err := newEmbeddedEtcd(parse(t)); etcd != nil || err != nil {
		t.Errorf("without the flag: %v, %v", etcd, err)
	}
}
