package e2e

import (
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A host may start before its etcd: it waits, logs that, and continues later.
func TestNoEtcdAtStart(t *testing.T) {
	c := newCluster(t, "3")
	c.etcd.Stop()
	a := c.node("a")
	d := a.launch()
	d.says(c.etcdAddr()) // the reason of the wait
	if d.isReady() {
		t.Fatal("ready without an etcd")
	}
	c.etcd.Restart()
	d.ready()
}

func TestNoConfigurationAtStart(t *testing.T) {
	for _, api := range []string{"3", "2"} {
		t.Run("api"+api, func(t *testing.T) {
			c := newCluster(t, api)
			c.keys.del(t, "config")
			d := c.node("a").launch()
			d.says(prefix)
			if d.isReady() {
				t.Fatal("ready without a configuration")
			}
			c.configure(`{"Network": "10.5.0.0/16"}`)
			d.ready()
		})
	}
}

// The network may come up later than the program, in any order of things.
func TestNoDefaultRouteAtStart(t *testing.T) {
	c := newCluster(t, "3")
	h := c.lab.Unwired("a")
	a := c.nodeOn(h)
	d := a.launch()
	d.says("wait for interface")
	h.AddAddr(netnstest.Uplink, h.Addr())
	if d.isReady() {
		t.Fatal("ready without a default route")
	}
	h.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), c.lab.Router().Addr().Addr(), "")
	d.ready()
	a.addContainer()
	b := c.node("b")
	b.join()
	b.addContainer()
	c.awaitPair(a, b)
}

// An address that -iface names may come later, as by DHCP.
func TestNoAddressAtStart(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	addr := netip.MustParsePrefix("192.168.77.200/24")
	d := a.launch("-iface=" + addr.Addr().String())
	d.says("wait for interface")
	d.says(addr.Addr().String())
	if d.isReady() {
		t.Fatal("ready without the address")
	}
	a.AddAddr(netnstest.Uplink, addr)
	d.ready()
	d.says("public_ip=" + addr.Addr().String())
}

// SIGTERM ends each of the waits, with exit code 0.
func TestSignalEndsWaiting(t *testing.T) {
	c := newCluster(t, "3")
	c.etcd.Stop()
	d := c.node("a").launch()
	d.says(c.etcdAddr())
	d.stop()

	d = c.nodeOn(c.lab.Unwired("b")).launch()
	d.says("wait for interface")
	d.stop()
}

// Packets do not depend on the store.
func TestEtcdFallsSilent(t *testing.T) {
	c := newCluster(t, "3")
	a, b, _, db := c.pair()
	c.etcd.Pause()
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		if err := allAnswered(t, way[0].container, way[1].containerAddr(), 20); err != nil {
			t.Errorf("ping from %s while etcd is silent: %v", way[0].Name(), err)
		}
	}
	db.stop() // a missing answer about the lease does not matter
	c.etcd.Resume()
	b.join()
	c.awaitPair(a, b)
}
