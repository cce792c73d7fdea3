package subnet_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet/subnettest"
)

// What another host had, and may come back for, is handed out last: also after
// its lease has ended.
func TestAcquireRememberedLast(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			reg := subnettest.NewFake()
			remembered := []netip.Prefix{prefix("10.5.1.0/24")}
			for i, want := range []string{"10.5.2.0/24", "10.5.1.0/24"} {
				l, err := newManager(t, reg, twoLeft).Acquire(t.Context(), attrs(fmt.Sprintf("192.0.2.%d", i+1)), netip.Prefix{}, remembered...)
				if err != nil || l.Subnet != prefix(want) {
					t.Errorf("host %d got %v, %v; want %s", i, l.Subnet, err, want)
				}
			}
		})
	}
}

// What the store alone remembers is handed out last as well: its history names
// subnets of hosts that left before this one came.
func TestAcquirePastLast(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			reg := subnettest.NewFake()
			reg.Put("10.5.1.0-24", value("192.0.2.9"), time.Hour)
			time.Sleep(2 * time.Hour) // of the bubble; its lease has ended
			for i, want := range []string{"10.5.2.0/24", "10.5.1.0/24"} {
				l, err := newManager(t, reg, twoLeft).Acquire(t.Context(), attrs(fmt.Sprintf("192.0.2.%d", i+1)), netip.Prefix{})
				if err != nil || l.Subnet != prefix(want) {
					t.Errorf("host %d got %v, %v; want %s", i, l.Subnet, err, want)
				}
			}
			// Those that need not choose do not ask.
			asked := reg.Calls(subnettest.OpPast)
			if _, err := newManager(t, reg, twoLeft).Acquire(t.Context(), us, netip.Prefix{}); err != nil || reg.Calls(subnettest.OpPast) != asked {
				t.Errorf("%v; the past was asked for %d times, want %d", err, reg.Calls(subnettest.OpPast), asked)
			}
		})
	}
}

// A store that does not tell of the past is no reason to wait, nor to do without
// what this host remembers itself.
func TestAcquireWithoutPast(t *testing.T) {
	for name, fault := range map[string]subnettest.Fault{"error": {Err: errors.New("permission denied")}, "silence": {Hang: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := subnettest.NewFake()
				reg.Inject(subnettest.OpPast, fault)
				began := time.Now()
				l, err := newManager(t, reg, twoLeft).Acquire(t.Context(), us, netip.Prefix{}, prefix("10.5.1.0/24"))
				if took := time.Since(began); err != nil || l.Subnet != prefix("10.5.2.0/24") || took > time.Second {
					t.Errorf("got %v, %v after %v; want 10.5.2.0/24 within a second", l.Subnet, err, took)
				}
			})
		})
	}
}
