package machine

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
)

func TestDescribe(t *testing.T) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("iperf3 is not in PATH; install the Debian package iperf3")
	}
	d, err := Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.CPU == "" || d.Cores != runtime.NumCPU() || d.Kernel == "" || d.Go != runtime.Version() || d.Date.IsZero() {
		t.Errorf("incomplete: %+v", d)
	}
	if !strings.HasPrefix(d.Iperf3, "iperf ") {
		t.Errorf("the tool is %q", d.Iperf3)
	}
}

func TestMeterSeesWork(t *testing.T) {
	m, err := StartMeter()
	if err != nil {
		t.Fatal(err)
	}
	for { // as long as it takes until a tick is charged
		seconds, share, err := m.Busy()
		if err != nil || share < 0 || share > 1 || seconds < 0 {
			t.Fatalf("%v s, share %v, %v", seconds, share, err)
		}
		if seconds > 0 && share > 0 {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("a busy loop is not seen")
		}
	}
}

func TestBusyLeavesOutIdleAndStolenTime(t *testing.T) {
	s := procfs.CPUStat{User: 1, Nice: 2, System: 4, IRQ: 8, SoftIRQ: 16, Idle: 100, Iowait: 200, Steal: 400, Guest: 1, GuestNice: 2}
	if got := busy(s); got != 31 {
		t.Errorf("busy for %v s, want 31", got)
	}
}

func TestAwaitQuiet(t *testing.T) {
	share, err := AwaitQuiet(t.Context(), 0)
	if err != nil || share < 0 || share > 1 {
		t.Errorf("share %v, %v", share, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := AwaitQuiet(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}
