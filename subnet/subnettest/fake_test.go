package subnettest

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
)

var errCut = errors.New("cut off")

func TestFakeConformance(t *testing.T) {
	open := func(t *testing.T) Harness {
		f := NewFake()
		return Harness{
			Store: f, Put: f.Put, Delete: f.Remove, SetConfig: f.SetConfig, Forget: f.Compact, QuietRenewal: true,
			Get: func(key string) ([]byte, bool) {
				f.mu.Lock()
				defer f.mu.Unlock()
				e := f.keys[key]
				if e == nil {
					return nil, false
				}
				return e.value, e.timer != nil
			},
			Requests: func() (n int) {
				for op := range allCalls(f) {
					n += f.Calls(Op(op))
				}
				return n
			},
			Unreachable: func(*testing.T) Store {
				f := NewFake()
				f.SetDown(errCut)
				return f
			},
			Silent: func(*testing.T) Store {
				f := NewFake()
				for op := range allCalls(f) {
					f.Inject(Op(op), Fault{Hang: true}, Fault{Hang: true})
				}
				return f
			},
		}
	}
	Keyspace(t, open)
	Families(t, open)
	Admin(t, open)
}

func allCalls(s Store) calls {
	all := sourceCalls(s)
	maps.Copy(all, keyspaceCalls(s))
	maps.Copy(all, adminCalls(s))
	return all
}

func TestFakeErr(t *testing.T) {
	f := NewFake()
	for name, call := range allCalls(f) {
		f.Inject(Op(name), Fault{}, Fault{Err: errCut})
		if name != string(OpWatch) {
			if err := call(t.Context()); !subnet.IsAnswer(err) {
				t.Errorf("%s, to pass: %v", name, err)
			}
		} else {
			f.faults.take(OpWatch)
		}
		wantErr(t, name, call(t.Context()), errCut)
	}
	if l, _ := (Harness{Store: f}).list(t); len(l) != 1 {
		t.Errorf("List = %v, want the one lease from before the faults", l)
	}
}

func TestFakeLostAck(t *testing.T) {
	f := NewFake()
	h := Harness{Store: f}

	f.Inject(OpPublishConfig, Fault{LostAck: errCut})
	_, err := f.PublishConfig(t.Context(), []byte("{}"))
	wantErr(t, "PublishConfig", err, errCut)
	if c, err := f.Config(t.Context()); string(c) != "{}" {
		t.Errorf("Config = %q, %v", c, err)
	}

	f.Inject(OpCreate, Fault{LostAck: errCut})
	_, err = f.Create(t.Context(), host(1), longTTL)
	wantErr(t, "Create", err, errCut)
	made, ok := h.find(t, host(1))
	if !ok {
		t.Fatal("Create had no effect")
	}

	f.Inject(OpUpdate, Fault{LostAck: errCut})
	changed := vxlan(1, "c6:d2:32:6f:8f:44")
	_, err = f.Update(t.Context(), made, changed.Attrs, longTTL)
	wantErr(t, "Update", err, errCut)
	now, _ := h.find(t, host(1))
	if !now.Attrs.Equal(changed.Attrs) {
		t.Fatal("Update had no effect")
	}

	f.Inject(OpDelete, Fault{LostAck: errCut})
	wantErr(t, "Delete", f.Delete(t.Context(), now), errCut)
	if _, ok := h.find(t, host(1)); ok {
		t.Fatal("Delete had no effect")
	}
}

func TestFakeWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		entered, release := make(chan struct{}), make(chan struct{})
		f.Inject(OpCreate, Fault{Entered: entered, Wait: release})
		done := make(chan error, 1)
		go func() {
			_, err := f.Create(t.Context(), host(1), longTTL)
			done <- err
		}()
		<-entered
		synctest.Wait()
		if l, _ := (Harness{Store: f}).list(t); len(l) != 0 {
			t.Errorf("List = %v while Create is held up", l)
		}
		close(release)
		if err := <-done; err != nil {
			t.Errorf("Create: %v", err)
		}
		f.Close()
	})
}

func TestFakeWatchFaults(t *testing.T) {
	f := NewFake()
	h := Harness{Store: f}
	_, at := h.list(t)
	w := h.watch(t, at)
	f.Put(host(1).Key(), []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	w.next()
	f.BreakWatches(errCut)
	wantErr(t, "Watch", w.end(), errCut)

	w = h.watch(t, subnet.Position{Rev: w.rev})
	f.Put(host(2).Key(), []byte(`{"PublicIP":"192.0.2.2"}`), 0)
	w.next()
	f.Compact() // it is up to date: no harm
	f.Put(host(3).Key(), []byte(`{"PublicIP":"192.0.2.3"}`), 0)
	wantEvent(t, w.next(), subnet.Added, host(3))
	f.SetDown(errCut)
	wantErr(t, "Watch", w.end(), errCut)
	_, _, err := f.List(t.Context())
	wantErr(t, "List", err, errCut)
	f.SetDown(nil)
	h.list(t)
}

// TestFakeClock: a day passes at once in a bubble.
func TestFakeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		defer f.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, at, _ := f.List(ctx)
		removed := make(chan time.Time, 1)
		go f.Watch(ctx, at, func(_ subnet.Rev, events []subnet.Event) {
			if len(events) > 0 && events[0].Type == subnet.Removed {
				removed <- time.Now()
			}
		})
		l, err := f.Create(ctx, host(1), 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if now := <-removed; !now.Equal(l.Expiration) {
			t.Errorf("removed at %v, want %v", now, l.Expiration)
		}
	})
}
