package rig

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// with returns the usual setting with other ends and rules.
func with(t *testing.T, ends, rules string) Setting {
	t.Helper()
	in := usual(1)
	for _, e := range EndKinds() {
		if e.Name == ends {
			in.Ends = e
		}
	}
	for _, r := range RuleSets() {
		if r.Name == rules {
			in.Rules = r
		}
	}
	if in.Ends.Name != ends || in.Rules.Name != rules {
		t.Fatalf("no ends %s or rules %s", ends, rules)
	}
	return in
}

func mtu(t *testing.T, h *netnstest.Host, device string) int {
	t.Helper()
	link, err := h.Netlink().LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().MTU
}

// The load's packets of full size cross the bridges and the tunnel, in one piece.
func TestEnds(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		ends, device string
		a, b         string // the addresses
		mtu          int    // of device
		crosses      bool   // the link
	}{
		{"container", "eth0", "10.0.1.2", "10.0.2.2", 1450, true},
		{"host", "docker0", "10.0.1.1", "10.0.2.1", 1450, true},
		{"nested", nestedDevice, "198.18.0.1", "198.18.0.2", 1400, true},
		{"local", "eth0", "10.0.1.2", "10.0.1.3", 1450, false},
	} {
		p := pair(t, r, Reference, with(t, c.ends, "masq"))
		a, b := up(t, p)
		if a.Addr != netip.MustParseAddr(c.a) || b.Addr != netip.MustParseAddr(c.b) {
			t.Errorf("%s: the ends are %v and %v", c.ends, a.Addr, b.Addr)
		}
		if got := mtu(t, a.Host, c.device); got != c.mtu {
			t.Errorf("%s: the MTU is %d, want %d", c.ends, got, c.mtu)
		}
		if got := mtu(t, p.hosts[0], bridge); got != 1450 {
			t.Errorf("%s: the bridge's MTU is %d", c.ends, got)
		}
		const headers = 28 // of IPv4 and ICMP
		sent := bytesOf(t, p.hosts[0], linkName)
		pingOnce(t, a, b, c.mtu-headers)
		if got := bytesOf(t, p.hosts[0], linkName)-sent >= uint64(c.mtu); got != c.crosses {
			t.Errorf("%s: the packet crosses the link: %v", c.ends, got)
		}
		again, _ := up(t, p)
		if again != a {
			t.Errorf("%s: the next trial has other ends", c.ends)
		}
	}
}

// With IPv6 inside, the load's packets of full size cross the link between the hosts' IPv6
// subnets, in one piece.
func TestInsideIPv6(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"raw", Reference, "wireguard-go", "udp-plain", "host-gw", "vxlan", "wireguard"} {
		in := usual(3)
		in.Inside = inet.IPv6
		p := pair(t, r, name, in)
		a, b := up(t, p)
		for _, e := range []load.End{a, b} {
			if !overlays[inet.IPv6].Contains(e.Addr) {
				t.Errorf("%s: an end is %v", name, e.Addr)
			}
		}
		const headers = 48 // of IPv6 and ICMPv6
		sent := bytesOf(t, p.hosts[0], linkName)
		pingOnce(t, a, b, p.envs[0].MTU-headers)
		if got := bytesOf(t, p.hosts[0], linkName) - sent; got < uint64(p.envs[0].MTU) {
			t.Errorf("%s: %d bytes crossed the link, want %d at least", name, got, p.envs[0].MTU)
		}
		if err := p.Down(); err != nil {
			t.Error(err)
		}
	}
}

// An overlay between containers has the load's family, and its packets of full size
// pass.
func TestNestedIPv6(t *testing.T) {
	in := with(t, "nested", "masq")
	in.Inside = inet.IPv6
	a, b := up(t, pair(t, newRig(t), Reference, in))
	if got := mtu(t, a.Host, nestedDevice); got != 1360 || !nestedNetworks[inet.IPv6].Contains(a.Addr) {
		t.Errorf("%v has an MTU of %d, want 1360", a.Addr, got)
	}
	pingOnce(t, a, b, 1360-48)
}

// pingOnce sends one packet that must not be fragmented.
func pingOnce(t *testing.T, a, b load.End, size int) {
	t.Helper()
	out, err := a.Command(t.Context(), "ping", "-c1", "-W5", "-Mdo", "-s", strconv.Itoa(size), "-I", a.Addr.String(), b.Addr.String()).CombinedOutput()
	if err != nil {
		t.Errorf("ping from %v to %v: %v: %s", a.Addr, b.Addr, err, out)
	}
}

// With "none" nothing is tracked; the others track the load's connections, whether
// a daemon or the benchmark has made the rules.
func TestRuleSets(t *testing.T) {
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		t.Skip("iptables-restore is not in PATH; install the Debian package iptables")
	}
	r := newRig(t)
	for _, c := range []struct {
		name   string
		inside inet.Family
	}{{Reference, inet.IPv4}, {Reference, inet.IPv6}, {"udp-plain", inet.IPv4}} {
		for _, rules := range []string{"masq", "none", "rules"} {
			in := with(t, "container", rules)
			in.Inside = c.inside
			p := pair(t, r, c.name, in)
			a, b := up(t, p)
			pingOnce(t, a, b, 64)
			for _, h := range p.hosts {
				if got := tracked(t, h) > 0; got != (rules != "none") {
					t.Errorf("%v, %s: connections are tracked: %v", c, rules, got)
				}
				if got := ruleCount(t, h, c.inside); rules == "rules" && got != iptablesRules || rules != "rules" && got != 0 {
					t.Errorf("%v, %s: %d iptables rules", c, rules, got)
				}
			}
		}
	}
}

// tracked returns the number of entries in connection tracking.
func tracked(t *testing.T, h *netnstest.Host) (n int) {
	t.Helper()
	err := h.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		n, err = strconv.Atoi(string(bytes.TrimSpace(text)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ruleCount returns the number of rules that iptables shows for a family.
func ruleCount(t *testing.T, h *netnstest.Host, f inet.Family) int {
	t.Helper()
	out, err := h.Command(t.Context(), strings.Replace(restorers[f], "restore", "save", 1)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(out), "\n-A ")
}

func TestKubeAndDocker(t *testing.T) {
	for _, f := range inet.Families {
		if got := strings.Count(kubeAndDocker(f, peerSubnet(f, 0)), "\n-A "); got != iptablesRules {
			t.Errorf("%v: %d rules, want %d", f, got, iptablesRules)
		}
	}
	// Published containers are in the subnet, and none is the load's.
	text := kubeAndDocker(inet.IPv4, peerSubnet(inet.IPv4, 0))
	if !strings.Contains(text, "-d 10.0.1.100/32") || strings.Contains(text, "10.0.1.2/32") || strings.Contains(text, "10.0.2.0/32") {
		t.Error("the published containers have other addresses")
	}
}
