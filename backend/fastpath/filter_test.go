package fastpath

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// newRunningWithFilters is newRunning as on a kernel without tcx.
func newRunningWithFilters(t *testing.T, direct bool) (a, b *host) {
	t.Helper()
	_, a, b = newHostsBy(t, direct)
	for _, h := range []*host{a, b} {
		h.old = true
		h.run()
	}
	connect(t, a, b).exchange(1)
	for _, h := range []*host{a, b} {
		h.serves(1)
	}
	return a, b
}

// filters lists the filters at the container's port and at the tunnel device or uplink.
func (h *host) filters() (found []string) {
	h.t.Helper()
	for _, name := range []string{"veth-" + h.container.Name(), h.outer()} {
		l, err := h.Netlink().LinkByName(name)
		h.must(err)
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			all, err := h.Netlink().FilterList(l, parent)
			h.must(err)
			for _, f := range all {
				found = append(found, name+" "+f.(*netlink.BpfFilter).Name)
			}
		}
	}
	return found
}

// qdiscs counts the qdiscs of filters on the host.
func (h *host) qdiscs() (n int) {
	h.t.Helper()
	all, err := h.Netlink().QdiscList(nil)
	h.must(err)
	for _, q := range all {
		if q.Type() == "clsact" {
			n++
		}
	}
	return n
}

// addClsact adds the qdisc of filters to a device. Without tcx the path has added it.
func (h *host) addClsact(device string) {
	h.t.Helper()
	if !strings.Contains(h.Exec("tc qdisc show dev "+device), "clsact") {
		h.Exec("tc qdisc add dev " + device + " clsact")
	}
}

// TestFilters has filters of tc run the programs: over a restart of user space, and
// until the path is suspended.
func TestFilters(t *testing.T) { eachWay(t, testFilters) }

func testFilters(t *testing.T, direct bool) {
	a, b := newRunningWithFilters(t, direct)
	s := warm(t, a, b)
	if got := a.filters(); len(got) != 3 {
		t.Errorf("filters are %q, want two at the port and one at the device", got)
	}
	a.stop()
	sent, received := b.fast(func() { s.exchange(100) })
	if sent < 100 || received < 100 {
		t.Errorf("%d and %d packets of 100 took the fast path while user space was away", sent, received)
	}
	a.run()
	if !a.path.Adopted() {
		t.Error("the programs were not adopted")
	}
	a.serves(1)
	if got := a.filters(); len(got) != 3 {
		t.Errorf("filters after a restart are %q, want 3", got)
	}
	warm(t, a, b)
	a.must(a.Do(a.path.Suspend))
	if got := a.filters(); len(got) > 0 || a.qdiscs() > 0 {
		t.Errorf("filters %q and %d qdiscs are left after a suspension", got, a.qdiscs())
	}
	s.exchange(1)
}

// TestFilterOfOthers puts a filter beside ours.
func TestFilterOfOthers(t *testing.T) {
	a, _ := newRunningWithFilters(t, false)
	a.Exec("tc filter add dev veth-a1 ingress pref 9 bpf direct-action object-pinned " + passing(t))
	a.serves(0)
	if got := a.filters(); len(got) != 1 || got[0] == "veth-a1 flannel" {
		t.Errorf("filters are %q, want that of others", got)
	}
	a.Exec("tc filter del dev veth-a1 ingress pref 9")
	a.serves(1)
}

// TestFiltersRemoved removes what a killed process has left.
func TestFiltersRemoved(t *testing.T) {
	a, _ := newRunningWithFilters(t, false)
	a.stop()
	if len(a.filters()) != 3 {
		t.Error("the filters have ended with the process")
	}
	a.must(a.Do(func() error { return Remove(a.config().PinDir, deviceName) }))
	if got := a.filters(); len(got) > 0 || a.qdiscs() > 0 {
		t.Errorf("filters %q and %d qdiscs are left", got, a.qdiscs())
	}
}

// TestHookOf parses names of pins.
func TestHookOf(t *testing.T) {
	for _, h := range []hook{{fastpathProgLeft, 7, 0}, {fastpathProgFromContainer, 12, 3}} {
		if got, ok := hookOf(h.pin()); !ok || got != h {
			t.Errorf("hookOf(%q) = %v, %v, want %v", h.pin(), got, ok, h)
		}
	}
	for _, name := range []string{"objects-0", "link_left", "filter_left_7", "link_left_x"} {
		if got, ok := hookOf(name); ok {
			t.Errorf("hookOf(%q) = %v, want none", name, got)
		}
	}
}
