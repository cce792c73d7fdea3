package daemon

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/coreos/flannel/backend/all"
)

const (
	// startGCPercent is GOGC during the start; Go's default is 100.
	startGCPercent = 25
	// steadyGCPercent is GOGC after the start. The daemon allocates next to nothing
	// then, so a low value costs no processor time.
	steadyGCPercent = 10
	// startEnds is how long the network has been complete, at least, when the start
	// counts as over.
	startEnds = 5 * time.Second
)

func setStartGC(embedded bool) {
	if tunesGC(embedded) {
		debug.SetGCPercent(startGCPercent)
	}
}

// tunesGC reports whether the daemon sets GOGC: not over the operator's value, and
// not with an embedded etcd, which allocates all the time.
func tunesGC(embedded bool) bool { return os.Getenv("GOGC") == "" && !embedded }

// trimmer returns memory to the kernel, once, after the start: only the start
// needs lists of all leases in several forms.
type trimmer struct {
	ready func() bool
	tune  bool
	trim  func(tune bool)
}

// newTrimmer returns the trimmer for one backend. One that allocates for its packets
// keeps startGCPercent: with WireGuard in user space, a low GOGC costs 5 % of the
// throughput of one TCP stream.
func newTrimmer(embedded bool, ready func() bool, backendType string) *trimmer {
	return &trimmer{ready: ready, tune: tunesGC(embedded) && !all.AllocatesForPackets(backendType), trim: trimMemory}
}

// Run waits until the start is over, trims once, and returns nil.
func (t *trimmer) Run(ctx context.Context) error {
	tick := time.NewTicker(startEnds)
	defer tick.Stop()
	for ready := false; ; ready = t.ready() {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if ready { // since the tick before
			t.trim(t.tune)
			return nil
		}
	}
}

func trimMemory(tune bool) {
	if tune {
		debug.SetGCPercent(steadyGCPercent)
	}
	runtime.GC() // FreeOSMemory runs a second one, which empties each sync.Pool
	debug.FreeOSMemory()
}
