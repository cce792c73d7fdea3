package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

var hostGWCase = backendCase{
	name: "host-gw", config: `{"Type": "host-gw"}`, mtu: 1500, staysUp: true,
	lease: func(addr, _ string) string {
		return `{"PublicIP":"` + addr + `","PublicIPv6":null,"BackendType":"host-gw"}`
	},
	read: ownRoutes,
	wants: func(_ netip.Prefix, v leaseValue) string {
		return fmt.Sprintf("via %v dev eth0", v.PublicIP)
	},
	harms: []string{"ip route flush proto 85"},
}

// A peer that is not on the link is refused alone, with the reason; one of
// another backend is no peer.
func TestHostGWRefusesFarPeers(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "host-gw"}`)
	a, b := c.node("a"), c.node("b")
	da, _ := c.joinPair(a, b)
	c.keys.put(t, "subnets/10.5.120.0-24", `{"PublicIP":"203.0.113.7","PublicIPv6":null,"BackendType":"host-gw"}`, 0)
	c.keys.put(t, "subnets/10.5.121.0-24", `{"PublicIP":"192.168.77.121","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}`, 0)
	da.says("refuse route dst=10.5.120.0/24")
	c.awaitPair(a, b)
	eventually(t, "the status names the reason", func() error {
		if text := a.statusText(); !strings.Contains(text, "203.0.113.7 is not on the link of eth0") {
			return errors.New(text)
		}
		return nil
	})
	routes, err := ownRoutes(a)
	if err != nil || len(routes) != 1 {
		t.Errorf("routes of a: %v, %v; want that to b alone", routes, err)
	}
}

func TestHostGWRefusesNAT(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "host-gw"}`)
	d := c.node("a").launch("-public-ip=203.0.113.1")
	if code := d.wait().ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	d.says("host-gw cannot work behind NAT")
}

// A host that is set up by hand after the protocol's description alone.
func TestHostGWPeerByHand(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "host-gw"}`)
	a := c.node("a")
	a.join()
	a.addContainer()
	hand := c.byHand("hand", `{"PublicIP":"%v","PublicIPv6":null,"BackendType":"host-gw"}`)
	hand.AddRoute(a.subnet(), a.Addr().Addr(), netnstest.Uplink)
	c.awaitPair(a, hand)
	if err := transfer(t, a.container, hand.container, hand.containerAddr()); err != nil {
		t.Error(err)
	}
}
