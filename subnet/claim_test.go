package subnet_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// node is a host with an identity.
func node(ip, id string) subnet.Attrs {
	a := attrs(ip)
	a.NodeID, a.Hostname = id, "host-"+id
	return a
}

// startNode is a host at work that has an identity.
func startNode(t *testing.T, reg *subnettest.Fake, a subnet.Attrs, prev netip.Prefix) *host {
	t.Helper()
	m := newManager(t, reg, network16)
	l, err := m.Acquire(t.Context(), a, prev)
	if err != nil {
		t.Fatal(err)
	}
	h := run(t, reg, m, l)
	synctest.Wait()
	return h
}

func (h *host) end(t *testing.T) {
	t.Helper()
	h.stop()
	if err := <-h.errs; err != nil {
		t.Error(err)
	}
}

// A second host with the address of a living one ends with an error that names
// it; the first one keeps its lease, and no peer hears of it.
func TestAddressInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		first := node("192.0.2.1", "a")
		first.BackendType, first.BackendData = "vxlan", json.RawMessage(`{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`)
		other := node("192.0.2.2", "b")
		other.BackendType = "vxlan"
		peer := startNode(t, reg, other, netip.Prefix{})
		owner := startNode(t, reg, first, netip.Prefix{})
		for len(peer.events) > 0 {
			<-peer.events
		}
		_, err := newManager(t, reg, network16).Acquire(t.Context(), node("192.0.2.1", "c"), netip.Prefix{})
		if !errors.Is(err, subnet.ErrAddressInUse) {
			t.Fatalf("error is %v, want ErrAddressInUse", err)
		}
		for _, word := range []string{"node a", "host-a", owner.lease.Subnet.String(), "-public-ip"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not name %q", err, word)
			}
		}
		synctest.Wait()
		for _, l := range list(t, reg) {
			if l.Subnet == owner.lease.Subnet && !l.Attrs.Equal(first) {
				t.Errorf("the owner's lease says %+v", l.Attrs)
			}
		}
		if len(peer.events) > 0 {
			t.Errorf("a peer was told %v", <-peer.events)
		}
		owner.end(t)
		peer.end(t)
	})
}

// A host that was installed anew, with the state of the old one lost, takes the
// lease of its address over; so does one whose predecessor has no NodeID, at once.
func TestTakeOverFromTheDead(t *testing.T) {
	for name, test := range map[string]struct {
		old  subnet.Attrs
		wait time.Duration
	}{
		"installed anew": {node("192.0.2.1", "a"), 5 * time.Second},
		"classic":        {attrs("192.0.2.1"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := subnettest.NewFake()
				old := startNode(t, reg, test.old, netip.Prefix{})
				old.end(t)
				began := time.Now()
				h := startNode(t, reg, node("192.0.2.1", "c"), netip.Prefix{})
				if h.lease.Subnet != old.lease.Subnet || time.Since(began) != test.wait {
					t.Errorf("got %v after %v, want %v after %v", h.lease.Subnet, time.Since(began), old.lease.Subnet, test.wait)
				}
				if l := stored(t, reg); !l.Attrs.Equal(node("192.0.2.1", "c")) {
					t.Errorf("the lease says %+v", l.Attrs)
				}
				h.end(t)
			})
		})
	}
}

// A host that was cut off from the store for so long that another with its
// address took its lease ends, and names the other; it does not fight for it.
func TestOwnerThatWasCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		old := startNode(t, reg, node("192.0.2.1", "a"), netip.Prefix{})
		l := stored(t, reg)
		l.Attrs = node("192.0.2.1", "c")
		if _, err := reg.Update(t.Context(), l, terms.TTL); err != nil {
			t.Fatal(err)
		}
		err := <-old.errs
		if !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), "host-c") {
			t.Errorf("the old owner ended with %v", err)
		}
		if l := stored(t, reg); l.Attrs.NodeID != "c" {
			t.Errorf("the lease is %+v again", l.Attrs)
		}
		old.stop()
	})
}

// A copy of a living host's disk is noticed, and gets another subnet with
// another identity; a host that has moved to another address keeps its subnet.
func TestSameNodeAtAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		h := startNode(t, reg, node("192.0.2.1", "a"), netip.Prefix{})
		m := newManager(t, reg, network16)
		_, err := m.Acquire(t.Context(), node("192.0.2.2", "a"), h.lease.Subnet)
		if !errors.Is(err, subnet.ErrCloned) || !strings.Contains(err.Error(), "192.0.2.1") {
			t.Fatalf("error is %v, want ErrCloned", err)
		}
		l, err := m.Acquire(t.Context(), node("192.0.2.2", "b"), h.lease.Subnet)
		if err != nil || l.Subnet == h.lease.Subnet {
			t.Errorf("the copy got %v, %v", l, err)
		}
		h.end(t)
		if err := reg.Delete(t.Context(), l); err != nil {
			t.Fatal(err)
		}

		moved := startNode(t, reg, node("192.0.2.3", "a"), netip.Prefix{})
		if moved.lease.Subnet != h.lease.Subnet {
			t.Errorf("got %v after the change of address, had %v", moved.lease.Subnet, h.lease.Subnet)
		}
		if l := stored(t, reg); !l.Attrs.Equal(node("192.0.2.3", "a")) {
			t.Errorf("the lease says %+v", l.Attrs)
		}
		moved.end(t)
	})
}

// Of two hosts with one address that start at once, both after a dead one, one
// has the lease in the end.
func TestTwoClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		startNode(t, reg, node("192.0.2.1", "a"), netip.Prefix{}).end(t)
		results := make(chan error, 2)
		for _, id := range []string{"b", "c"} {
			m := newManager(t, reg, network16)
			go func() {
				l, err := m.Acquire(t.Context(), node("192.0.2.1", id), netip.Prefix{})
				results <- err
				if err == nil {
					h := run(t, reg, m, l)
					t.Cleanup(h.stop)
				}
			}()
		}
		one, two := <-results, <-results
		if one != nil || !errors.Is(two, subnet.ErrAddressInUse) {
			t.Errorf("the first ended with %v, the second with %v", one, two)
		}
	})
}

// A run that ended between the creation of its lease and the look whether it
// is alone there yields at the next start, as it would have then.
func TestCrashBeforeTheSecondLook(t *testing.T) {
	for name, prev := range map[string]netip.Prefix{"never ready": {}, "was ready": prefix("10.5.16.0/24")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := subnettest.NewFake()
				reg.Put("10.5.16.0-20", value("192.0.2.9"), time.Hour)
				reg.Put("10.5.16.0-24", value("192.0.2.1"), time.Hour)
				l, err := newManager(t, reg, network16).Acquire(t.Context(), us, prev)
				if err != nil || l.Subnet.Overlaps(prefix("10.5.16.0/20")) != prev.IsValid() {
					t.Errorf("got %v, %v", l, err)
				}
			})
		})
	}
}
