package daemon

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Memory is returned once, when the network has been complete for startEnds.
func TestTrimAfterTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ready, trimmed atomic.Bool
		task := newTrimmer(false, ready.Load, "vxlan")
		task.trim = func(bool) { trimmed.Store(true) }
		ended := make(chan error, 1)
		go func() { ended <- task.Run(t.Context()) }()
		time.Sleep(time.Hour)
		ready.Store(true)
		became := time.Now()
		if err := <-ended; err != nil || !trimmed.Load() {
			t.Errorf("Run = %v, trimmed: %v", err, trimmed.Load())
		}
		if after := time.Since(became); after < startEnds || after > 3*startEnds {
			t.Errorf("trimmed %v after the daemon was ready", after)
		}
	})
}

func TestTrimEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	task := newTrimmer(false, func() bool { return true }, "vxlan")
	task.trim = func(bool) { t.Error("trimmed") }
	if err := task.Run(ctx); err != nil {
		t.Error(err)
	}
}

// The collector is tuned unless the operator or the embedded etcd decides, and
// not for WireGuard, whose packets allocate.
func TestCollectorIsTuned(t *testing.T) {
	for _, tt := range []struct {
		gogc     string
		embedded bool
		backend  string
		want     bool
	}{
		{"", false, "vxlan", true},
		{"", false, "wireguard", false},
		{"", true, "vxlan", false},
		{"200", false, "vxlan", false},
	} {
		t.Setenv("GOGC", tt.gogc)
		if got := newTrimmer(tt.embedded, nil, tt.backend).tune; got != tt.want {
			t.Errorf("%+v: tuned %v", tt, got)
		}
	}
}
