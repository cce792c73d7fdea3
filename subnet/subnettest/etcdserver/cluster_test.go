package etcdserver

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A cluster loses one member and serves, loses the majority and does not, and
// gives back what a snapshot held.
func TestCluster(t *testing.T) {
	c := StartCluster(t, 3, Options{})
	client, err := clientv3.New(clientv3.Config{Endpoints: c.URLs(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	write := func(value string) {
		t.Helper()
		for { // the first attempts may meet an election, or the member that is away
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := client.Put(ctx, "key", value)
			cancel()
			if err == nil {
				return
			}
			if t.Context().Err() != nil {
				t.Fatalf("write %s: %v", value, err)
			}
		}
	}
	read := func() string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), startLimit)
		defer cancel()
		answer, err := client.Get(ctx, "key")
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.Kvs) == 0 {
			return ""
		}
		return string(answer.Kvs[0].Value)
	}

	write("saved")
	snapshot := c.Snapshot(t.Context())
	c.Members[0].Stop()
	write("one away")
	c.Members[1].Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	if _, err := client.Put(ctx, "key", "no majority"); err == nil {
		t.Error("one of three members took a write")
	}
	cancel()
	c.Members[1].Resume()
	c.Restart()
	write("all back")

	c.Restore(t.Context(), snapshot)
	c.Restart()
	if got := read(); got != "saved" {
		t.Errorf("after the restore the key is %q, want %q", got, "saved")
	}
	c.Wipe()
	c.Restart()
	if got := read(); got != "" {
		t.Errorf("after the wipe the key is %q", got)
	}
}
