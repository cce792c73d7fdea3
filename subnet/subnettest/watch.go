package subnettest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// delivery is one call of a watch's function.
type delivery struct {
	rev    subnet.Rev
	events []subnet.Event
}

// watch is a Watch in progress.
type watch struct {
	t         *testing.T
	cancel    context.CancelFunc
	delivered chan delivery
	ended     chan error
	rev       subnet.Rev // as last delivered
	pending   []subnet.Event
}

func startWatch(t *testing.T, s subnet.Source, p subnet.Position) *watch {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watch{t: t, cancel: cancel, rev: p.Rev, delivered: make(chan delivery, 100), ended: make(chan error, 1)}
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		w.ended <- s.Watch(ctx, p, func(rev subnet.Rev, events []subnet.Event) {
			select {
			case <-returned:
				t.Error("Watch called back after it had returned")
			default:
			}
			w.delivered <- delivery{rev, events}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-returned
	})
	return w
}

// next returns the next event.
func (w *watch) next() subnet.Event {
	w.t.Helper()
	timeout := time.After(patience)
	for len(w.pending) == 0 {
		select {
		case d := <-w.delivered:
			if d.rev < w.rev {
				w.t.Fatalf("Watch went back from revision %d to %d", w.rev, d.rev)
			}
			w.rev, w.pending = d.rev, d.events
		case err := <-w.ended:
			w.t.Fatalf("Watch ended: %v", err)
		case <-timeout:
			w.t.Fatal("Watch delivered nothing")
		}
	}
	e := w.pending[0]
	w.pending = w.pending[1:]
	return e
}

// end returns the error of Watch.
func (w *watch) end() error {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case <-w.delivered:
		case err := <-w.ended:
			return err
		case <-timeout:
			w.t.Fatal("Watch did not end")
		}
	}
}

func wantErr(t *testing.T, call string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: error is %v, want %v", call, got, want)
	}
}

// wantEvent checks type and subnets, and the attributes of an Added. A store may
// know the host's name.
func wantEvent(t *testing.T, got subnet.Event, typ subnet.EventType, l subnet.Lease) {
	t.Helper()
	if l.Attrs.Hostname == "" {
		l.Attrs.Hostname = got.Lease.Attrs.Hostname
	}
	if got.Type != typ || got.Lease.Key() != l.Key() || typ == subnet.Added && !got.Lease.Attrs.Equal(l.Attrs) {
		t.Fatalf("event is %v %v %+v, want %v %v %+v", got.Type, got.Lease, got.Lease.Attrs, typ, l, l.Attrs)
	}
}
