package subnet_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// positions is the number of positions, among the calls of one kind, that a fault
// is tested at.
const positions = 4

// Each fault is injected at each call. During six days a host's key is deleted,
// watches break, history is lost, and peers come and go. The host keeps its subnet,
// has one key, and in the end has delivered the store's leases.
func TestEveryFaultAtEveryCall(t *testing.T) {
	broken := errors.New("injected")
	for name, fault := range map[string]func() subnettest.Fault{
		"refused":     func() subnettest.Fault { return subnettest.Fault{Err: broken} },
		"answer lost": func() subnettest.Fault { return subnettest.Fault{LostAck: broken} },
		"slow":        func() subnettest.Fault { return subnettest.Fault{Wait: after(5 * time.Second)} },
		"timed out":   func() subnettest.Fault { return subnettest.Fault{Wait: after(5 * time.Second), Err: broken} },
		"timed out, answer lost": func() subnettest.Fault {
			return subnettest.Fault{Wait: after(5 * time.Second), LostAck: broken}
		},
		"compacted": func() subnettest.Fault { return subnettest.Fault{Err: subnet.ErrCompacted} },
	} {
		for _, op := range []subnettest.Op{subnettest.OpList, subnettest.OpOverlapping, subnettest.OpGet,
			subnettest.OpCreate, subnettest.OpUpdate, subnettest.OpWatch} {
			if name == "compacted" && op != subnettest.OpWatch {
				continue // says so of a watch only
			}
			for position := range positions {
				for _, twice := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s %d %s twice=%v", op, position, name, twice), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							fake := subnettest.NewFake()
							fake.Inject(op, make([]subnettest.Fault, position)...)
							fake.Inject(op, fault())
							if twice {
								fake.Inject(op, fault())
							}
							live(t, fake)
							if n := fake.Calls(op); n <= position {
								t.Errorf("there were %d calls of %s: the fault has come to none", n, op)
							}
						})
					})
				}
			}
		}
	}
}

// after returns a channel that is closed after d, in a bubble's time.
func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// live runs one host for six days. In the end it must agree with the store.
func live(t *testing.T, fake *subnettest.Fake) {
	t.Helper()
	const week = 7 * 24 * time.Hour
	// Peers' subnets are below SubnetMin, so that ours is never one of them.
	peer := func(i int) string { return fmt.Sprintf("10.5.0.%d-26", 64*i) }
	fake.Put(peer(0), value("192.0.2.200"), week)
	h := startHost(t, fake)
	defer func() {
		h.Stop()
		if err := <-h.Errs; err != nil {
			t.Errorf("renew ended with %v", err)
		}
	}()
	for round := range 3 {
		fake.Put(peer(round+1), value(fmt.Sprintf("192.0.2.%d", 201+round)), week)
		time.Sleep(time.Minute)
		fake.Remove(h.Lease.Key()) // an operator's slip
		time.Sleep(time.Minute)
		fake.BreakWatches(errors.New("cut"))
		fake.Remove(peer(round)) // that of the last round has left
		fake.Compact()
		time.Sleep(48 * time.Hour)
	}
	time.Sleep(time.Minute)
	want, ours := make(map[netip.Prefix]netip.Addr), 0
	for _, l := range fake.Leases(t) {
		if l.Attrs.PublicIP == us.PublicIP {
			ours++
			continue
		}
		want[l.Subnet] = l.Attrs.PublicIP
	}
	if ours != 1 || !h.Holds(t) {
		t.Errorf("%d keys name us, and one of them is %v: %v; want one", ours, h.Lease.Subnet, h.Holds(t))
	}
	if got := delivered(t, h, make(map[netip.Prefix]netip.Addr)); !maps.Equal(got, want) {
		t.Errorf("the data plane knows %v, the store has %v", got, want)
	}
	if s := h.Manager.Status(); s.StoreError != nil || s.Lease.Subnet != h.Lease.Subnet {
		t.Errorf("the status is %+v", s)
	}
}
