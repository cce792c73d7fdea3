package rtnl

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Check finds the same differences that a pass mends, and leaves them.
func TestCheck(t *testing.T) {
	b := newBench(t)
	passes := 0
	c := config()
	c.Passed = func(time.Duration) { passes++ }
	k := b.reconciler(c)
	says := func(want string) {
		t.Helper()
		if err := k.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Check = %v, want %q", err, want)
		}
	}
	b.exchange(k, State{}, peers(0, 5))
	says("") // it is not known yet what is desired
	b.check(pass(k))
	says("")
	dst := peer(3).Routes[0].Dst.String()
	b.ip("route del " + dst)
	says("the kernel lacks (1): route " + dst)
	says("the kernel lacks (1): route " + dst)
	for n := range 5 {
		if n != 3 {
			b.ip("route del " + peer(n).Routes[0].Dst.String())
		}
	}
	says("the kernel lacks (5): route ")
	says("; …")
	b.check(pass(k))
	says("")
	b.ip("link del " + device)
	says("interface " + device + " does not exist")
	b.addDevice()
	b.check(pass(k))
	says("")
	if passes != 3 {
		t.Errorf("%d passes were told of, want 3", passes)
	}

	// What cannot be had where things are is a refusal, which Refusals tells.
	far := Route{Dst: netip.MustParsePrefix("10.5.250.0/24"), Via: netip.MustParseAddr("203.0.113.1"), Dev: netnstest.Uplink}
	b.exchange(k, State{}, State{Routes: []Route{far}})
	b.check(pass(k))
	if len(k.Refusals()) != 1 {
		t.Fatalf("refusals %v, want one", k.Refusals())
	}
	says("")
}

func BenchmarkCheck(b *testing.B) {
	for name, n := range map[string]int{"1000 peers": 1000, "10000 peers": 10000} {
		b.Run(name, func(b *testing.B) {
			h := newBench(b)
			k := h.reconciler(config())
			h.exchange(k, State{}, peers(0, n))
			h.check(pass(k))
			for b.Loop() {
				h.check(k.Check())
			}
		})
	}
}
