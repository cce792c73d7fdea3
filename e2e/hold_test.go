package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// An uplink for which no network can be made is no reason to end: the lease is
// kept, and the next change makes it good.
func TestUplinkUnusable(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "host-gw"}`)
	a, b := c.node("a"), c.node("b")
	a.args = append(a.args, "-public-ip="+a.Addr().Addr().String(), "-subnet-lease-ttl=3s")
	da, _ := c.joinPair(a, b)
	key, subnet := a.leaseKey(), a.subnet()
	before := c.leases()[key]

	moved := netip.PrefixFrom(netip.MustParseAddr("192.168.77.200"), a.Addr().Bits())
	replace := func(from, to netip.Prefix) {
		a.run("ip", "addr", "del", from.String(), "dev", "eth0")
		a.run("ip", "addr", "add", to.String(), "dev", "eth0")
		a.run("ip", "route", "replace", "default", "via", c.lab.Router().Addr().Addr().String())
	}
	replace(a.Addr(), moved)
	da.says("make the network anew: failed, keep the lease and try again")
	a.readiness(503, "use interface eth0")
	da.says("renewed lease") // with nothing to carry its packets
	if got := c.leases()[key]; got != before {
		t.Errorf("the lease is %s, was %s", got, before)
	}
	replace(moved, a.Addr())
	a.readiness(200, "")
	c.awaitPair(a, b)
	if a.subnet() != subnet {
		t.Errorf("the subnet is %v, was %v", a.subnet(), subnet)
	}
	da.stop()
}

// SIGHUP ends it as SIGTERM does: there is no file to read again, and a terminal
// that is gone must not leave the device behind.
func TestHangup(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a", dataPathFlag+"offload") // its device ends with it
	d := a.join()
	d.signal(syscall.SIGHUP)
	if code := d.wait().ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	d.says("stopped by a signal")
	if a.HasLink("flannel0") {
		t.Error("the device is still there")
	}
}

// The daemon removes firewall rules of a former Network that a killed run left.
// It keeps the rules of others.
func TestOldFirewallRules(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a", "-ip-masq")
	d := a.join()
	a.run("nft", "add", "table", "ip", "flannel-10.77.0.0-16") // of another flannel on this host
	d.kill()
	c.configure(`{"Network": "10.6.0.0/16"}`)
	a.join()
	tables, err := output(t, a.Host, "nft", "list", "tables")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"flannel-10.5.0.0-16": false, "flannel-10.6.0.0-16": true, "flannel-10.77.0.0-16": true} {
		if strings.Contains(tables, name) != want {
			t.Errorf("table %s: there: %v, want %v", name, !want, want)
		}
	}
}

// The daemon waits for the address of the embedded etcd.
func TestEmbeddedEtcdWaitsForAddress(t *testing.T) {
	c := newCluster(t, "3")
	h := c.lab.Unwired("a")
	second := netip.MustParsePrefix("172.20.0.1/24")
	a := newNode(t, h, "", "-etcd-embed", fmt.Sprintf("-etcd-embed-listen=%v:2379", second.Addr()), "-network="+network.String())
	d := a.launch("-iface=" + h.Addr().Addr().String())
	d.says("no interface has this address")
	h.AddAddr(netnstest.Uplink, h.Addr())
	d.says("wait for the address of the embedded etcd")
	if d.isReady() {
		t.Fatal("ready without a store")
	}
	h.AddAddr(netnstest.Uplink, second)
	d.ready()
}
