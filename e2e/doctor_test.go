package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// diagnosis is what flannel doctor -json prints.
type diagnosis []struct{ Check, Verdict, Found, Fix string }

// doctor runs flannel doctor on the node, by a program before it if there is one.
func (n *node) doctor(c *cluster, before ...string) (diagnosis, int) {
	n.t.Helper()
	line := append(before, programs.flannel, "doctor", "-json", "-timeout=5s", "-etcd-endpoints="+c.etcd.URL())
	out, err := output(n.t, n.Host, line[0], line[1:]...)
	var d diagnosis
	if failed := json.Unmarshal([]byte(out), &d); failed != nil {
		n.t.Fatalf("%q: %v, %v in\n%s", line, err, failed, out)
	}
	if err != nil {
		return d, 3
	}
	return d, 0
}

// finds waits until a check has a verdict, and certain words in its finding or its
// fix, which it returns.
func (n *node) finds(c *cluster, check, verdict, words string, before ...string) (fix string) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("doctor says %s of %s", verdict, check), func() error {
		d, code := n.doctor(c, before...)
		i := slices.IndexFunc(d, func(f struct{ Check, Verdict, Found, Fix string }) bool { return f.Check == check })
		if i < 0 || d[i].Verdict != verdict || !strings.Contains(d[i].Found+"\n"+d[i].Fix, words) ||
			verdict == "fail" && code != 3 || verdict != "ok" && d[i].Fix == "" {
			return fmt.Errorf("code %d, %+v, want %q", code, d, words)
		}
		fix = d[i].Fix
		return nil
	})
	return fix
}

// shell runs a line of commands on the node's host.
func (n *node) shell(line string) {
	n.t.Helper()
	for command := range strings.SplitSeq(line, "\n") {
		if out, err := output(n.t, n.Host, "sh", "-c", command); err != nil {
			n.t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
}

// Each fault that a network namespace can have is found, and no longer after the
// command of its finding.
func TestDoctorFindsFaults(t *testing.T) {
	c := newCluster(t, "3")
	a, b := c.node("a"), c.node("b")
	a.Sysctl("net.ipv4.ip_forward", "1")
	a.finds(c, "daemon", "warn", "systemctl start flannel")
	_, db := c.joinPair(a, b)
	a.awaitPeer(b.subnet(), b.Addr().Addr())
	a.finds(c, "daemon", "ok", "is ready")
	a.finds(c, "peers", "ok", "all 1 answer through the overlay")
	a.finds(c, "path MTU", "ok", "packets of 1472 bytes")

	for _, fault := range []struct{ check, inject, verdict, words, heal string }{
		{"ip_forward", "sysctl -w net.ipv4.ip_forward=0", "fail", "sysctl -w net.ipv4.ip_forward=1", "FIX"},
		{"rp_filter", "sysctl -w net.ipv4.conf.all.rp_filter=1", "warn", "is strict on flannel0", "FIX"},
		{"offloads", "ethtool -K eth0 gro off tso off", "warn", "throughput: tso is off", "FIX"},
		{"uplink", "ip link set eth0 mtu 1300", "warn", "1280", "FIX"},
		{"firewall", "nft 'add table inet fw; add chain inet fw strict { type filter hook input priority 1; policy drop; }; add rule inet fw strict meta l4proto { icmp, tcp } accept'",
			"warn", "policy drop", "FIX"},
		{"firewall", "iptables -P FORWARD DROP", "warn", "no rule accepts the network 10.5.0.0/16", "FIX"},
	} {
		a.shell(fault.inject)
		fix := a.finds(c, fault.check, fault.verdict, fault.words)
		heal := strings.Replace(fault.heal, "FIX", fix, 1) // the finding's command
		a.shell(heal)
		a.finds(c, fault.check, "ok", "")
	}
	a.run("nft", "delete", "table", "inet", "fw")
	if a.legacyTables("-t", "mangle", "-L") {
		a.finds(c, "host rules", "warn", "mangle of legacy iptables")
		if reason := a.status().Backend.DataPathReason; !strings.Contains(reason, "passing by legacy iptables (mangle)") {
			t.Errorf("the status does not name the table: %s", reason)
		}
	}

	a.finds(c, "capabilities", "warn", "CAP_PERFMON is missing", "setpriv", "--bounding-set=-perfmon,-sys_admin")
	a.finds(c, "capabilities", "fail", "CAP_NET_ADMIN is missing", "setpriv", "--bounding-set=-net_admin")
	a.finds(c, "kernel data path", "warn", "CAP_BPF", "setpriv", "--bounding-set=-bpf,-sys_admin")
	a.finds(c, "tun device", "fail", "modprobe tun", "unshare", "--mount", "sh", "-c", `mount -t tmpfs none /dev/net && exec "$@"`, "sh")

	// A way that carries less than it says, and one that carries nothing.
	c.lab.Router().SetMTU("port3", 1400)
	a.finds(c, "path MTU", "fail", "large packets are lost")
	c.lab.Router().SetMTU("port3", 1500)
	a.finds(c, "path MTU", "ok", "")
	db.stop()
	b.command("cleanup", "-subnet-file="+b.envFile)
	a.finds(c, "peers", "fail", "but their hosts do")
	b.Down("eth0")
	a.finds(c, "peers", "fail", "the path to them is cut")

	c.configure(`{"Network": "10.5.0.0/40"}`)
	a.finds(c, "etcd", "fail", "is not valid")
	c.keys.del(t, "config")
	a.finds(c, "etcd", "fail", "has no network configuration")
	c.etcd.Stop()
	a.finds(c, "etcd", "fail", "endpoint health")
	a.commandSays(1, "not in 0 to 65535", "doctor", "-port=70000")
}
