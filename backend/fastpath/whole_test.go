package fastpath

import (
	"strings"
	"testing"
)

// TestOnlyWhole has a kernel that lacks what all programs but `whole` need: containers
// are not served, and super-packets have ways past the bridge. The next process takes
// the program over.
func TestOnlyWhole(t *testing.T) {
	t.Run("tcx, if the kernel has it", func(t *testing.T) { testOnlyWhole(t, false) })
	t.Run("filters of tc", func(t *testing.T) { testOnlyWhole(t, true) })
}

func testOnlyWhole(t *testing.T, filters bool) {
	_, a, b := makeHosts(t, "10.5.1.0/24", "10.5.2.0/24")
	c := a.config()
	c.onlyWhole, c.old = true, filters
	a.path, a.stop = a.begin(c)
	a.programs = a.path.programs
	connect(t, a, b).exchange(20)
	a.until("super-packets pass the bridge by", func() bool { return a.waysPast(bridgeName) == 1 })
	a.until("the status has the reason", func() bool {
		s := a.path.Status()
		return s.Containers == 0 && strings.Contains(strings.Join(s.Off, ""), "the kernel lacks what the fast path needs")
	})
	a.nft("table bridge user { chain c { type filter hook output priority filter; ether type ip accept; }; }")
	a.until("a rule of the bridge sees them", func() bool { return a.waysPast(bridgeName) == 0 })
	a.until("the reason is known", func() bool {
		a.path.mu.Lock()
		defer a.path.mu.Unlock()
		return a.path.cuts[uint32(a.index(bridgeName))] == "docker0 cuts super-packets: chain bridge user c"
	})
	a.stop()
	a.path, a.stop = a.begin(c)
	a.programs = a.path.programs
	if !a.path.Adopted() {
		t.Error("the program was not adopted")
	}
}

// waysPast returns to how many stations super-packets pass a bridge by.
func (h *host) waysPast(bridge string) (n int) {
	h.t.Helper()
	index := uint32(h.index(bridge))
	var s fastpathStation
	var e fastpathExit
	exits := h.programs.Exits.Iterate()
	for exits.Next(&s, &e) {
		if s.Bridge == index {
			n++
		}
	}
	return n
}
