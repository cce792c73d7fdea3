package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// The daemon follows changes of the uplink and publishes them to the other
// hosts. It keeps running.
func TestUplinkChanges(t *testing.T) {
	for kind, overhead := range map[string]int{
		`"udp"`: 28, `"host-gw"`: 0, `"vxlan"`: 50, `"vxlan", "DirectRouting": true`: 50, `"wireguard"`: 80,
	} {
		t.Run(strings.ReplaceAll(kind, `"`, ""), func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(`{"Type": ` + kind + `}`)
			a, b := c.node("a"), c.node("b")
			da, db := c.joinPair(a, b)
			key, subnet := a.leaseKey(), a.subnet()
			before := shared(c.leases()[key])

			a.SetMTU(netnstest.Uplink, 1400)
			eventually(t, "subnet.env has the MTU", func() error {
				if got := a.mtu(); got != 1400-overhead {
					return fmt.Errorf("FLANNEL_MTU is %d", got)
				}
				return nil
			})
			c.awaitPair(a, b)
			if got := shared(c.leases()[key]); got != before {
				t.Errorf("the lease was %s, is %s", before, got)
			}

			moved := netip.MustParseAddr("192.168.77.200")
			for _, step := range []string{
				fmt.Sprintf("ip addr del %v dev eth0", a.Addr()),
				fmt.Sprintf("ip addr add %v/%d dev eth0", moved, a.Addr().Bits()),
				fmt.Sprintf("ip route replace default via %v", c.lab.Router().Addr().Addr()),
			} {
				a.run(strings.Fields(step)...)
			}
			b.awaitPeer(subnet, moved)
			c.awaitPair(a, b)
			want := strings.Replace(before, a.Addr().Addr().String(), moved.String(), 1)
			if got := shared(c.leases()[key]); got != want {
				t.Errorf("the lease is\n%s, want\n%s", got, want)
			}
			if got := a.status().Node.PublicIP; got != moved {
				t.Errorf("the status has public IP %v, want %v", got, moved)
			}

			a.Down(netnstest.Uplink)
			a.readiness(503, "interface eth0 is down")
			a.Up(netnstest.Uplink)
			a.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), c.lab.Router().Addr().Addr(), "")
			a.readiness(200, "")
			c.awaitPair(a, b)

			if a.subnet() != subnet {
				t.Errorf("the subnet is %v, was %v", a.subnet(), subnet)
			}
			da.stop()
			db.stop()
		})
	}
}
