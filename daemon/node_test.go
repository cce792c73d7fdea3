package daemon

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet/kube"
)

// fakeCluster notes what a nodeReporter writes.
type fakeCluster struct {
	mu         sync.Mutex
	conditions []kube.Condition
	events     []kube.Event
	uid        string
	fails      error
}

func (f *fakeCluster) SetCondition(_ context.Context, c kube.Condition) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails == nil {
		f.conditions = append(f.conditions, c)
	}
	return f.fails
}

func (f *fakeCluster) AddEvent(_ context.Context, e kube.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
	return nil
}

func (f *fakeCluster) OwnUID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.uid
}

func (f *fakeCluster) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func TestNodeReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeCluster{uid: "1"}
		n := &nodeReporter{condition: true, cluster: func() cluster { return f }}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		well, broken := status.Snapshot{}, status.Snapshot{NotReady: []string{"device flannel.1 is down"}}
		for _, step := range []struct {
			what   string
			do     func()
			wait   time.Duration
			wrote  int // conditions in all
			status bool
		}{
			{"nothing is known", func() {}, time.Minute, 0, false},
			{"a start that waits", func() { n.note(broken) }, lastingFault / 2, 0, false},
			{"ready", func() { n.note(well) }, time.Minute, 1, false},
			{"a short fault", func() { n.note(broken) }, lastingFault / 2, 1, false},
			{"its end", func() { n.note(well) }, time.Minute, 1, false},
			{"a lasting fault", func() { n.note(broken) }, 2 * lastingFault, 2, true},
			{"ready again", func() { n.note(well) }, time.Minute, 3, false},
			{"an API server that refuses", func() { f.change(func() { f.fails = errors.New("refused") }); n.note(broken) }, 10 * time.Minute, 3, false},
			{"one that accepts", func() { f.change(func() { f.fails = nil }) }, 3 * time.Minute, 4, true},
			{"ready again", func() { n.note(well) }, time.Minute, 5, false},
			{"another Node object", func() { f.change(func() { f.uid = "2" }) }, time.Minute, 6, false},
		} {
			step.do()
			<-time.After(step.wait)
			synctest.Wait()
			f.change(func() {
				if len(f.conditions) != step.wrote || len(f.events) != step.wrote {
					t.Errorf("%s: conditions %+v, events %+v; want %d", step.what, f.conditions, f.events, step.wrote)
				} else if step.wrote > 0 && f.conditions[step.wrote-1].Unavailable != step.status {
					t.Errorf("%s: condition %+v", step.what, f.conditions[step.wrote-1])
				}
			})
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
