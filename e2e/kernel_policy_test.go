package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// hostRules are rules of a host about the datagrams between a and b, as commands on
// the side that each is for. The kernel data path cannot heed them.
func hostRules(a, b *node) map[string]struct {
	on       *node
	add, del string
	blocks   bool // until del nothing passes
} {
	from, to := a.Addr().Addr(), b.Addr().Addr()
	template := fmt.Sprintf("tmpl src %v dst %v proto esp mode transport", from, to)
	return map[string]struct {
		on       *node
		add, del string
		blocks   bool
	}{
		"IPsec out": {a, fmt.Sprintf("ip xfrm policy add src %v dst %v dir out %s", from, to, template), "ip xfrm policy flush", true},
		"IPsec in":  {b, fmt.Sprintf("ip xfrm policy add src %v dst %v dir in %s", from, to, template), "ip xfrm policy flush", true},
		"firewall in": {b, "nft 'add table ip f; add chain ip f c { type filter hook input priority 0; }; add rule ip f c udp dport 8285 drop'",
			"nft delete table ip f", true},
		"chain policy": {b, "nft 'add table ip f; add chain ip f c { type filter hook input priority 0; policy drop; }; add rule ip f c meta l4proto tcp accept'",
			"nft delete table ip f", true},
		"firewall out": {a, fmt.Sprintf("nft 'add table ip f; add chain ip f c { type filter hook output priority 0; }; add rule ip f c ip daddr %v drop'", to),
			"nft delete table ip f", true},
		"mangle": {a, "nft 'add table ip f; add chain ip f c { type route hook output priority -150; }; add rule ip f c udp dport 8285 meta mark set 7'",
			"nft delete table ip f", false},
	}
}

// A rule of the host for the datagrams ends the kernel data path, and the rule then
// holds. The path comes back when the rule has gone.
func TestKernelHeedsHostRules(t *testing.T) {
	c := newCluster(t, "3")
	a, b := c.node("a"), c.node("b")
	da, db := c.joinPair(a, b)
	daemons := map[*node]*daemon{a: da, b: db}
	for name, rule := range hostRules(a, b) {
		t.Run(name, func(t *testing.T) {
			c.awaitKernelLease(a)
			c.awaitKernelLease(b)
			c.awaitKernelPackets(a, b)
			run := func(command string) {
				t.Helper()
				if out, err := output(t, rule.on.Host, "sh", "-c", command); err != nil {
					t.Fatalf("%s: %v\n%s", command, err, out)
				}
			}
			run(rule.add)
			eventually(t, "the status and the lease name the rule", func() error {
				if s := rule.on.status().Backend; s.DataPath != "offload" || !strings.Contains(s.DataPathReason, "the kernel path is suspended: ") {
					return fmt.Errorf("data path %s: %s", s.DataPath, s.DataPathReason)
				}
				if value := c.leases()[rule.on.leaseKey()]; strings.Contains(value, "DataPath") {
					return fmt.Errorf("the lease is %s", value)
				}
				return nil
			})
			if pins := pinsOf(t, rule.on); len(pins) != 0 {
				t.Errorf("still pinned: %v", pins)
			}
			err := ping(t, a.container, b.containerAddr())
			if passed := err == nil; passed == rule.blocks {
				t.Errorf("a packet passed: %v, want %v", passed, !rule.blocks)
			}
			run(rule.del)
			daemons[rule.on].says("resume kernel data path")
		})
	}
	c.awaitKernelLease(a)
	c.awaitKernelPackets(a, b)
	// A device without programs does not outlive the process.
	if out, err := output(t, a.Host, "sh", "-c", hostRules(a, b)["IPsec out"].add); err != nil {
		t.Fatal(out)
	}
	eventually(t, "the programs are gone", func() error {
		if pins := pinsOf(t, a); len(pins) != 0 {
			return fmt.Errorf("still pinned: %v", pins)
		}
		return nil
	})
	da.stop()
	if a.HasLink("flannel0") {
		t.Error("the device stayed, though nothing works by it")
	}
}

// If the user names the kernel data path, what keeps it from carrying packets at the
// start is an error.
func TestKernelNamedDespiteObstacles(t *testing.T) {
	c := newCluster(t, "3")
	a, b := c.node("a", dataPathFlag+"kernel"), c.node("b", dataPathFlag+"offload")
	b.join()
	const five = "for i in 1 2 3 4 5; do ip link add v$i type veth peer p$i; ip link set p$i up; ip link set v$i up; hops=\"$hops nexthop dev v$i\"; done; ip route add %v $hops"
	for name, obstacle := range map[string]struct{ add, says string }{
		"rule about the port":  {"ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 8285 dir out tmpl proto esp mode transport", "datagrams"},
		"rule about one peer":  {fmt.Sprintf("ip xfrm policy add src %v dst %v dir out tmpl proto esp mode transport", a.Addr().Addr(), b.Addr().Addr()), "datagrams"},
		"rule of the firewall": {"nft 'add table ip f; add chain ip f c { type filter hook input priority 0; }; add rule ip f c udp dport 8285 drop'", "datagrams"},
		"routes":               {fmt.Sprintf(five, b.Addr().Addr()), "name 5 interfaces"},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := output(t, a.Host, "sh", "-c", obstacle.add); err != nil {
				t.Fatal(out)
			}
			d := a.launch()
			if code := d.wait().ExitCode(); code == 0 {
				t.Error("the exit code is 0")
			}
			d.says(obstacle.says)
			if leases := fmt.Sprint(c.leases()); strings.Contains(leases, "DataPath") {
				t.Errorf("the leases are %s", leases)
			}
			if pins := pinsOf(t, a); len(pins) != 0 {
				t.Errorf("still pinned: %v", pins)
			}
			if out, err := output(t, a.Host, "sh", "-c", "ip xfrm policy flush; nft flush ruleset; for i in 1 2 3 4 5; do ip link del v$i; done 2>/dev/null; true"); err != nil {
				t.Fatal(out)
			}
		})
	}
}
