package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A daemon that is killed and started again loses no packet of either family, whatever
// the family of the datagrams.
func TestKernelRestartOfFamilies(t *testing.T) {
	for _, mode := range []string{"auto", "ipv4", "ipv6"} {
		t.Run(mode, func(t *testing.T) {
			c := newCluster(t, "3")
			c.configure(familyConfig("46", fmt.Sprintf(`{"Type": "udp", "Mode": %q}`, mode)))
			a, b := c.dualNode("a", dataPathFlag+"kernel"), c.dualNode("b", dataPathFlag+"kernel")
			_, db := c.joinPair(a, b)
			for _, n := range []*node{a, b} {
				n.AddIPv6("docker0", n.container, n.ipv6Subnet())
			}
			var targets []netip.Addr
			for _, pair := range []struct {
				family string
				a, b   netip.Addr
			}{
				{"IPv4", a.containerAddr(), b.containerAddr()},
				{"IPv6", a.container.IPv6Addr().Addr(), b.container.IPv6Addr().Addr()},
			} {
				mixed := mode != "auto" && !strings.EqualFold(mode, pair.family)
				if reason := a.status().Backend.DataPathReason; mixed && strings.Contains(reason, "needs Linux 6.3") {
					netnstest.MixedDecap.Missing(t, reason)
					continue // by offload, which a restart interrupts
				}
				c.awaitInKernel("flannel0", a, pair.b)
				c.awaitInKernel("flannel0", b, pair.a)
				targets = append(targets, pair.b)
			}

			var pings []<-chan string
			for _, to := range targets {
				pings = append(pings, floodPing(t, a.container, to))
			}
			db.kill()
			db = b.join()
			db.says("taken over from an earlier run")
			for i, ended := range pings {
				if text := <-ended; !strings.Contains(text, " 0% packet loss") {
					t.Errorf("to %v while the daemon was killed and started again:\n%s", targets[i], text)
				}
			}
		})
	}
}

// floodPing sends pings for some seconds. The channel gets the summary.
func floodPing(t *testing.T, from *netnstest.Host, to netip.Addr) <-chan string {
	t.Helper()
	c := from.Command(t.Context(), "ping", "-n", "-q", "-i", "0.001", "-c", "3000", "-W", "5", to.String())
	ended := make(chan string, 1)
	go func() {
		text, err := c.CombinedOutput()
		ended <- fmt.Sprint(string(text), err)
	}()
	return ended
}
