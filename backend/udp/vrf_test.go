package udp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
)

// At an uplink in a VRF the kernel data path is an error if it is named, and is
// passed over otherwise.
func TestUplinkInVRF(t *testing.T) {
	c := backend.Config{Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24, PublicIP: netip.MustParseAddr("192.0.2.1"),
		Uplink: uplink.Uplink{Name: "eth0", MTU: 1500, Addr: netip.MustParseAddr("192.0.2.1"), VRF: "red"}}
	for path, refused := range map[string]bool{"auto": false, "offload": false, "plain": false, "kernel": true} {
		c.DataPath = path
		if _, err := New(c); (err != nil) != refused || refused && !strings.Contains(err.Error(), "VRF red") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := openKernel(t.Context(), &pathConfig{tableConfig: tableConfig{Config: c, outer: []inet.Family{inet.IPv4}}}); err == nil || !strings.Contains(err.Error(), "VRF red") {
		t.Errorf("openKernel: %v", err)
	}
}

// A datagram that arrives in a VRF counts as one by the interface that the route to
// the peer names.
func TestArrivalInVRF(t *testing.T) {
	netnstest.Require(t)
	for _, dataPath := range []string{"offload", "plain"} {
		t.Run(dataPath, func(t *testing.T) {
			lab := netnstest.New(t)
			a, b := lab.Host("n0"), lab.Host("n1")
			enslave := "ip link add red type vrf table 10 && ip link set red up && ip link set " + netnstest.Uplink + " master red"
			if out, err := b.Command(t.Context(), "sh", "-c", enslave).CombinedOutput(); err != nil {
				if strings.Contains(string(out), "Unknown device type") {
					netnstest.VRF.Missing(t, string(out))
					return
				}
				t.Fatalf("make a VRF: %v\n%s", err, out)
			}
			nodes := []*node{newNode(t, a, 0, dataPath, ""), newNode(t, b, 1, dataPath, "red")}
			introduce(nodes)
			to := nodes[1].container.Addr().Addr().String()
			if out, err := nodes[0].container.Command(t.Context(), "ping", "-c", "1", "-w", "20", to).CombinedOutput(); err != nil {
				t.Errorf("ping %s: %v\n%s", to, err, out)
			}
			for name, n := range nodes[1].network.Stats().Drops {
				if n > 0 {
					t.Errorf("%d packets dropped: %s", n, name)
				}
			}
		})
	}
}
