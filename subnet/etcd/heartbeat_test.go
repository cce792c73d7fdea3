package etcd

import (
	"slices"
	"testing"
	"time"
)

func TestHeartbeatTimeout(t *testing.T) {
	var timing HeartbeatTiming
	var got []time.Duration
	for range 12 {
		got = append(got, timing.Timeout())
		timing.Answered(false)
	}
	want := append([]time.Duration{1500 * time.Millisecond, 3 * time.Second, 6 * time.Second}, slices.Repeat([]time.Duration{12 * time.Second}, 9)...)
	if !slices.Equal(got, want) {
		t.Errorf("timeouts %v, want %v", got, want)
	}
	timing.Answered(true)
	if timing.Timeout() != HeartbeatTimeout {
		t.Errorf("timeout after an answer is %v, want %v", timing.Timeout(), HeartbeatTimeout)
	}
	if i := timing.Interval(); i <= 0 || i > heartbeatInterval {
		t.Errorf("interval %v", i)
	}
}
