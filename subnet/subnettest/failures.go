package subnettest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// calls are the methods of an interface by name, each with arguments by which it
// can succeed.
type calls map[string]func(context.Context) error

func sourceCalls(s subnet.Source) calls {
	return calls{
		"Config": func(ctx context.Context) error { _, err := s.Config(ctx); return err },
		"List":   func(ctx context.Context) error { _, _, err := s.List(ctx); return err },
		"Watch": func(ctx context.Context) error {
			return s.Watch(ctx, subnet.Position{Rev: 1}, func(subnet.Rev, []subnet.Event) {})
		},
	}
}

func keyspaceCalls(k subnet.Keyspace) calls {
	l := host(1)
	l.Rev = 1
	return calls{
		"Overlapping": func(ctx context.Context) error { _, err := k.Overlapping(ctx, host(1)); return err },
		"Get":         func(ctx context.Context) error { _, err := k.Get(ctx, l); return err },
		"Create":      func(ctx context.Context) error { _, err := k.Create(ctx, host(1), longTTL); return err },
		"Update":      func(ctx context.Context) error { _, err := k.Update(ctx, l, l.Attrs, longTTL); return err },
		"Delete":      func(ctx context.Context) error { return k.Delete(ctx, l) },
	}
}

func adminCalls(a subnet.Admin) calls {
	return calls{
		"PublishConfig": func(ctx context.Context) error { _, err := a.PublishConfig(ctx, []byte("{}")); return err },
		"ReplaceConfig": func(ctx context.Context) error { return a.ReplaceConfig(ctx, []byte("{}"), []byte("{ }")) },
		"Reserve":       func(ctx context.Context) error { _, err := a.Reserve(ctx, host(1)); return err },
	}
}

// failures are tests of how the calls of one interface fail.
type failures[S interface{ Close() error }] struct {
	open                S
	unreachable, silent func(t *testing.T) S
	limit               time.Duration
	calls               func(S) calls
}

// tests returns the tests by name.
func (f failures[S]) tests() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"Closed": f.testClosed, "Ctx": f.testCtx, "Unreachable": f.testUnreachable, "Silent": f.testSilent,
	}
}

func (f failures[S]) testClosed(t *testing.T) {
	if err := f.open.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	for name, call := range f.calls(f.open) {
		if err := call(t.Context()); subnet.IsAnswer(err) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if err := f.open.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
}

func (f failures[S]) testCtx(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range f.calls(f.open) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
}

func (f failures[S]) testUnreachable(t *testing.T) {
	s := f.unreachable(t)
	t.Cleanup(func() { s.Close() })
	f.wantFailures(t, s)
}

// testSilent also ends each call by its context, and one by Close.
func (f failures[S]) testSilent(t *testing.T) {
	if f.limit > 0 {
		s := f.silent(t)
		t.Cleanup(func() { s.Close() })
		f.wantFailures(t, s)
	}
	s := f.silent(t)
	t.Cleanup(func() { s.Close() })
	last := ""
	for name, call := range f.calls(s) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(f.limit/10, cancel)
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled while it waits: %v", name, err)
		}
		last = name
	}
	ended := make(chan error, 1)
	go func() { ended <- f.calls(s)[last](t.Context()) }()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	select {
	case err := <-ended:
		if subnet.IsAnswer(err) {
			t.Errorf("%s, in progress at Close: %v", last, err)
		}
	case <-time.After(patience):
		t.Errorf("%s did not return after Close", last)
	}
}

// wantFailures checks that each call ends by itself, with an error that is not
// an answer.
func (f failures[S]) wantFailures(t *testing.T, s S) {
	t.Helper()
	for name, call := range f.calls(s) {
		ended := make(chan error, 1)
		go func() { ended <- call(t.Context()) }()
		select {
		case err := <-ended:
			if subnet.IsAnswer(err) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s hangs", name)
		}
	}
}
