package fastpath

import (
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestKnowsLookUp has a flag of the first look-ups (BPF_FIB_LOOKUP_DIRECT, Linux 4.18), and
// one that no kernel has.
func TestKnowsLookUp(t *testing.T) {
	netnstest.Require(t)
	for flag, want := range map[uint32]bool{1 << 0: true, 1 << 31: false} {
		if known, err := knowsLookUp(flag); known != want || err != nil {
			t.Errorf("knowsLookUp(%#x): %v, %v; want %v", flag, known, err, want)
		}
	}
}

// TestUnknownLookUp has a kernel that does not know the flag of our look-ups: the status
// says so, rather than each packet takes the long way without a reason.
func TestUnknownLookUp(t *testing.T) {
	_, a, _ := newHosts(t)
	c := a.config()
	c.lookUp = 1 << 31
	a.path, a.stop = a.begin(c)
	a.programs = a.path.programs
	const reason = "look-ups of routes without neighbours (BPF_FIB_LOOKUP_SKIP_NEIGH), which need Linux 6.3 or newer"
	a.until("the status has the reason", func() bool { return strings.Contains(strings.Join(a.path.Status().Off, "; "), reason) })
}
