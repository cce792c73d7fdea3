package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// footprint has the resources of a daemon.
type footprint struct{ goroutines, files, heap int }

// footprint collects the daemon's garbage first.
func (n *node) footprint(d *daemon) (f footprint, err error) {
	for path, number := range map[string]struct {
		format string
		to     *int
	}{
		"heap?gc=1&debug=1": {"# HeapAlloc = %d", &f.heap},
		"goroutine?debug=1": {"goroutine profile: total %d", &f.goroutines},
	} {
		_, text, err := n.get(n.t.Context(), "/debug/pprof/"+path)
		if err != nil {
			return f, err
		}
		for line := range strings.Lines(text) {
			if _, err := fmt.Sscanf(line, number.format, number.to); err == nil {
				break
			}
		}
		if *number.to == 0 {
			return f, fmt.Errorf("%s says no %q", path, number.format)
		}
	}
	f.files = d.openFiles()
	return f, nil
}

// replaceHosts adds hosts, changes their addresses and removes them. Each has a new
// subnet. It waits until n has removed a hundred, so that never most of all are gone.
func (c *cluster) replaceHosts(n *node, from, hosts int, lease string) {
	c.t.Helper()
	for i := from; i < from+hosts; i++ {
		lease := strings.Replace(lease, "02:00:00:00:00:01", fmt.Sprintf("02:00:00:02:%02x:%02x", i/256, i%256), 1)
		key := fmt.Sprintf("subnets/10.%d.%d.0-24", 64+i/256, i%256)
		c.keys.put(c.t, key, fmt.Sprintf(lease, "192.168.77.201"), 0)
		c.keys.put(c.t, key, fmt.Sprintf(lease, "192.168.77.202"), 0)
		if i%100 == 99 || i == from+hosts-1 {
			last := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i/256), byte(i % 256), 0}), 24)
			n.awaitPeer(last, netip.MustParseAddr("192.168.77.202"))
			c.keys.del(c.t, key)
			n.awaitPeer(last, netip.Addr{})
			continue
		}
		c.keys.del(c.t, key)
	}
}

// Three thousand changes of leases leave nothing behind: of goroutines and files no
// more than come and go anyway, and of memory less than if a hundred bytes of
// each change were kept; a lease alone has more.
func TestLeaseChangesLeaveNothing(t *testing.T) {
	const hosts = 1000 // three changes each; the heap varies by a hundred kB anyway
	for backend, lease := range map[string]string{
		"udp":   `{"PublicIP":%q}`,
		"vxlan": `{"PublicIP":%q,"BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:01"}}`,
	} {
		t.Run(backend, func(t *testing.T) {
			c := newCluster(t, "3")
			c.configure(fmt.Sprintf(`{"Network": "10.0.0.0/8", "SubnetMin": "10.5.0.0", "SubnetMax": "10.5.255.0", "Backend": {"Type": %q}}`, backend))
			for i := range 200 { // these stay, so the others are not most of all
				c.keys.put(t, fmt.Sprintf("subnets/10.63.%d.0-24", i), fmt.Sprintf(strings.Replace(lease, "02:00:00:00:00:01", fmt.Sprintf("02:00:00:00:01:%02x", i), 1), fmt.Sprintf("192.168.78.%d", i+1)), 0)
			}
			n := c.node("a", "-status-pprof", "-probe-interval=0")
			d := n.join()
			c.replaceHosts(n, 0, 50, lease) // maps and buffers have their size then
			// State that is kept for a while goes some time later.
			rest := func() (least footprint) {
				for i := range 5 {
					f, err := n.footprint(d)
					if err != nil {
						t.Fatal(err)
					}
					if i == 0 || f.heap < least.heap {
						least = f
					}
				}
				return least
			}
			before := rest()
			c.replaceHosts(n, 50, hosts, lease)
			began := time.Now()
			eventually(t, "the daemon holds what it held before", func() error {
				now, err := n.footprint(d)
				if err == nil && (now.goroutines > before.goroutines+10 || now.files > before.files+10 || now.heap > before.heap+3*hosts*100) {
					err = fmt.Errorf("%+v, before %+v", now, before)
				}
				if err == nil {
					t.Logf("%v: before %+v, after %+v", time.Since(began), before, now)
				}
				return err
			})
		})
	}
}
