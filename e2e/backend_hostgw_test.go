package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

func TestHostGW(t *testing.T) {
	tr := newTrio(t, `{"Type": "host-gw"}`)
	for _, n := range tr.nodes {
		want := fmt.Sprintf(`{"PublicIP":"%v","PublicIPv6":null,"BackendType":"host-gw"}`, n.Addr().Addr())
		if got := shared(tr.leases()[n.leaseKey()]); got != want {
			t.Errorf("lease of %s is\n%s, want\n%s", n.Name(), got, want)
		}
		if n.mtu() != 1500 {
			t.Errorf("FLANNEL_MTU is %d, want the uplink's 1500", n.mtu())
		}
	}
	tr.transferAll()
	expected := func(key, value string) (string, string) {
		subnet, v := parseLease(t, key, value)
		return subnet.String(), fmt.Sprintf("via %v dev eth0", v.PublicIP)
	}

	tr.undisturbed("restart", func() {
		for i, n := range tr.nodes[:2] {
			tr.daemons[i].stop()
			tr.daemons[i] = n.join()
		}
	})
	tr.undisturbed("kill", func() {
		for i, n := range tr.nodes[:2] {
			tr.daemons[i].kill()
			tr.daemons[i] = n.join()
		}
	})
	lease := `{"PublicIP":"192.168.77.%d","PublicIPv6":null,"BackendType":"host-gw"}`
	tr.restartWhileALeaseEnds(fakePeer{netip.MustParsePrefix("10.5.110.0/24"), fmt.Sprintf(lease, 110)}, ownRoutes)
	tr.flap(tr.nodes[0])
	tr.meetAll()
	tr.churn(func(random int) string { return fmt.Sprintf(lease, 100+random) })
	for _, n := range tr.nodes {
		tr.agree(n, ownRoutes, expected)
	}
	tr.meetAll()
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
	c.meet(a, b)
	if status := a.statusText(); !strings.Contains(status, "203.0.113.7 is not on the link of eth0") {
		t.Errorf("the status does not name the reason:\n%s", status)
	}
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
	c.meet(a, hand)
	if err := transfer(t, a.container, hand.container, hand.containerAddr()); err != nil {
		t.Error(err)
	}
}
