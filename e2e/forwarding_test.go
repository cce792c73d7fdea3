package e2e

import (
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Forwarding that is off for one interface alone cuts containers off, and doctor
// names the interface.
func TestDoctorFindsForwardingOfOneInterface(t *testing.T) {
	c := newCluster(t, "3")
	for backend, device := range map[string]string{"udp": "flannel0", "vxlan": "flannel.1", "host-gw": netnstest.Uplink} {
		c.configure(`{"Network": "10.5.0.0/16", "SubnetMax": "10.5.99.0", "Backend": {"Type": "` + backend + `"}}`)
		n := c.node(strings.ReplaceAll(backend, "-", ""))
		d := n.join()
		n.addContainer()
		for _, device := range []string{device, "docker0"} {
			forwarding := "net/ipv4/conf/" + device + "/forwarding"
			set := func(value string) {
				t.Helper()
				// The name of a device may hold a dot.
				if out, err := output(t, n.Host, "sysctl", "-w", forwarding+"="+value); err != nil {
					t.Fatalf("sysctl: %v\n%s", err, out)
				}
			}
			set("0")
			if out, _ := n.command("doctor", "-etcd-endpoints="+c.etcd.URL()); !strings.Contains(out, "forwarding is off for "+device+":") || !strings.Contains(out, "sysctl -w "+forwarding+"=1") {
				t.Errorf("%s, off for %s: doctor does not name it:\n%s", backend, device, out)
			}
			set("1")
		}
		if out, _ := n.command("doctor", "-etcd-endpoints="+c.etcd.URL()); strings.Contains(out, "forwarding is off") {
			t.Errorf("%s, all on: doctor says\n%s", backend, out)
		}
		d.stop()
		c.keys.del(t, "subnets/"+n.leaseKey())
	}
}

// IPv6 that is forwarded on single interfaces alone is no fault; doctor names an
// interface that lacks it.
func TestDoctorKnowsForcedForwarding(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(familyConfig("46", `{"Type": "vxlan"}`))
	n := c.dualNode("a")
	n.join()
	n.addContainer()
	n.AddIPv6("docker0", n.container, n.ipv6Subnet())
	const check = "IPv6"
	n.finds(c, check, "ok", "")
	set := func(key, value string) string {
		t.Helper()
		out, err := output(t, n.Host, "sysctl", "-w", "net/ipv6/conf/"+key+"="+value)
		if err != nil && strings.Contains(out, "No such file") {
			return out
		}
		if err != nil {
			t.Fatalf("sysctl: %v\n%s", err, out)
		}
		return ""
	}
	set("all/forwarding", "0")
	n.finds(c, check, "fail", "sysctl -w net.ipv6.conf.all.forwarding=1")
	if cause := set("flannel-v6.1/force_forwarding", "1"); cause != "" {
		netnstest.ForcedForwarding.Missing(t, cause)
		return
	}
	n.finds(c, check, "fail", "sysctl -w net/ipv6/conf/docker0/force_forwarding=1")
	set("docker0/force_forwarding", "1")
	n.finds(c, check, "ok", "")
}

// A policy of legacy iptables that drops what containers send is logged, as one of
// nftables is.
func TestLegacyForwardPolicy(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a", "-ip-masq")
	if a.legacyTables("-P", "FORWARD", "DROP") {
		a.join().says(`forwarding blocked table="filter of legacy iptables" chain="FORWARD"`)
	}
}

// legacyTables runs iptables-legacy. It returns false on a kernel without these tables.
func (n *node) legacyTables(args ...string) bool {
	n.t.Helper()
	out, err := output(n.t, n.Host, "iptables-legacy", args...)
	if err != nil && !strings.Contains(out, "Table does not exist") && !strings.Contains(out, "can't initialize") {
		n.t.Fatalf("iptables-legacy %v: %v\n%s", args, err, out)
	}
	if err != nil {
		netnstest.LegacyIPTables.Missing(n.t, out)
	}
	return err == nil
}
