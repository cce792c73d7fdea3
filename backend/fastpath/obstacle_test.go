package fastpath

import (
	"net"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// TestIPsec adds an IPsec policy.
func TestIPsec(t *testing.T) {
	a, _ := newRunning(t)
	policy := &netlink.XfrmPolicy{
		Src: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
		Dir: netlink.XFRM_DIR_FWD, Action: netlink.XFRM_POLICY_ALLOW,
	}
	a.must(a.Do(func() error { return netlink.XfrmPolicyAdd(policy) }))
	a.serves(0)
	a.must(a.Do(func() error { return netlink.XfrmPolicyDel(policy) }))
	a.serves(1)
	a.Exec("ip xfrm policy setdefault fwd block")
	a.serves(0)
	a.Exec("ip xfrm policy setdefault fwd accept")
	a.serves(1)
}

// TestXDP attaches a program of XDP, which would drop packets, to the bridge.
func TestXDP(t *testing.T) {
	a, _ := newRunning(t)
	a.Exec("ip link set dev docker0 xdpgeneric pinned " + pinnedProgram(t, ebpf.XDP, 0))
	a.until("the status says why", func() bool { return strings.Join(a.path.Status().Off, "") == "XDP program at docker0" })
	a.Exec("ip link set dev docker0 xdpgeneric off")
	a.serves(1)
}

// TestXDPInContainer attaches a program of XDP to the container's end of its veth pair.
func TestXDPInContainer(t *testing.T) {
	a, b := newRunning(t)
	s := datagrams(t, b, a)
	flood(t, s, b, a)
	a.container.Exec("ip link set dev eth0 xdpdrv pinned " + pinnedProgram(t, ebpf.XDP, 0)) // drops all
	a.until("the status says why", func() bool {
		return strings.Join(a.path.Status().Off, "") == "XDP program in the container at veth-a1"
	})
	write(s.from, 8)
	silent(t, s.to)
}

// TestRulesBehindOurs has rules that packets meet after their flow is marked.
func TestRulesBehindOurs(t *testing.T) {
	a, _ := newRunning(t)
	for _, rules := range []string{
		"table netdev user { chain c { type filter hook egress device flannel0 priority 0; ip daddr 10.5.2.2 drop; }; }",
		"table inet user { chain c { type filter hook postrouting priority 2147483647; ip daddr 10.5.2.2 drop; }; }",
	} {
		a.nft(rules)
		a.serves(0)
		a.nft("delete table " + strings.Join(strings.Fields(rules)[1:3], " "))
		a.serves(1)
	}
}
