package offloadrepair

import (
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/offloadprobe"
)

// Two networks of one host share its uplink, and may turn the same switch. After the end of
// the fault all switches are on, whoever has turned them off.
func TestRepairersOfTwoNetworks(t *testing.T) {
	for name, ends := range map[string][]Switch{"first": {tunnelChecksum}, "second": {uplinkChecksum}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(offloadprobe.Checksum, ends...)
				before := maps.Clone(h.on)
				var both sync.WaitGroup
				for _, dir := range []string{t.TempDir(), t.TempDir()} {
					both.Go(func() {
						h.runWith(t, dir, 48*time.Hour, func(passed time.Duration) {
							if passed == 600*interval {
								h.set(func(h *host) { h.layer = "" })
							}
						})
					})
				}
				both.Wait()
				if !maps.Equal(h.on, before) {
					t.Errorf("the switches are %v, were %v; turned\n%q", h.on, before, h.turns)
				}
			})
		})
	}
}
