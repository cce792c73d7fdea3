package etcdv3

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// A write of the configuration is announced, beside a watch of the leases; a write
// of a lease is not. The call ends with its context and with the store.
func TestNotifyConfig(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	s := openStore(t, srv.ClientConfig("/net"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched := make(chan error, 1)
	go func() { watched <- s.Watch(ctx, subnet.Position{}, func(subnet.Rev, []subnet.Event) {}) }()
	announced, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- s.NotifyConfig(ctx, func() { announced <- struct{}{} }) }()
	await := func(what string) {
		t.Helper()
		select {
		case <-announced:
		case err := <-ended:
			t.Fatalf("%s: ended with %v", what, err)
		case <-time.After(30 * time.Second):
			t.Fatalf("%s is not announced", what)
		}
	}
	await("the watch")
	if _, err := s.Create(t.Context(), lease("", ""), time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PublishConfig(t.Context(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	await("the first write")
	if err := s.ReplaceConfig(t.Context(), []byte("{}"), []byte("{ }")); err != nil {
		t.Fatal(err)
	}
	await("the second write")
	if n := len(announced); n != 0 {
		t.Errorf("%d calls more", n)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if err := <-watched; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch of the leases ended with %v", err)
	}
	again := make(chan error, 1)
	go func() { again <- s.NotifyConfig(t.Context(), func() { announced <- struct{}{} }) }()
	await("the watch")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-again; subnet.IsAnswer(err) {
		t.Errorf("ended with %v", err)
	}
}
