package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A daemon that needs a module which the kernel lacks does not start. Its error has the
// command that loads the module.
func TestMissingModules(t *testing.T) {
	for _, m := range []struct {
		module string
		uses   string // command that succeeds if the kernel has the module
		config string
		args   []string
		remedy string
	}{
		{"vxlan", "ip link add probe type vxlan id 1 dstport 4789", `{"Type": "vxlan"}`, nil, "modprobe vxlan"},
		{"wireguard", "ip link add probe type wireguard", `{"Type": "wireguard", "Datapath": "kernel"}`, nil, "modprobe wireguard"},
		{"nft_masq", "nft 'table ip probe { chain out { type nat hook postrouting priority srcnat; masquerade; }; }'", `{"Type": "udp"}`, []string{"-ip-masq"}, "modprobe -a nf_tables nft_chain_nat nft_masq"},
	} {
		t.Run(m.module, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(m.config)
			a := c.node("a")
			out, lacks := output(t, c.lab.Host("probe"), "sh", "-c", m.uses)
			d := a.launch(m.args...)
			if lacks == nil {
				d.ready()
				return
			}
			t.Logf("%s: %v: %s", m.uses, lacks, out)
			refuses(t, d, m.remedy)
		})
	}
}

// A daemon that can do without a module goes on. Its status has the command. It does not
// start if the user names the data path that needs the module.
func TestModulesToDoWithout(t *testing.T) {
	for _, m := range []struct {
		module string
		uses   string // as for TestMissingModules
		config string
		remedy string
		named  string // flag that names the data path
	}{
		{"sch_ingress", "tc qdisc add dev lo clsact", `{"Type": "udp"}`, "modprobe sch_ingress", dataPathFlag + "kernel"},
		{"wireguard", "ip link add probe type wireguard", `{"Type": "wireguard"}`, "modprobe wireguard", ""},
	} {
		t.Run(m.module, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(m.config)
			out, lacks := output(t, c.lab.Host("probe"), "sh", "-c", m.uses)
			a := c.node("a")
			d := a.join()
			path := ""
			eventually(t, "the data path is the kernel's, or the command is named", func() error {
				s := a.status().Backend
				path = s.DataPath
				if path == "kernel" || lacks != nil && strings.Contains(s.DataPathReason, m.remedy) {
					return nil
				}
				return fmt.Errorf("it is %s: %s; %s: %s", path, s.DataPathReason, m.uses, out)
			})
			if path != "kernel" && m.named != "" {
				d.stop()
				d = a.launch(m.named)
				if code := d.wait().ExitCode(); code == 0 {
					t.Error("with the path's name, the exit code is 0")
				}
				d.says(m.remedy)
			}
		})
	}
}

// Without nftables each backend carries packets, and its daemon and the cleanup end. The
// status has the command that loads what the fast path needs.
func TestMissingNFTables(t *testing.T) {
	for _, backend := range []string{"udp", "vxlan", "host-gw"} {
		t.Run(backend, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(fmt.Sprintf(`{"Type": %q}`, backend))
			_, lacks := output(t, c.lab.Host("probe"), "nft", "list", "tables")
			a, b, da, _ := c.pair()
			if err := ping(t, a.container, b.containerAddr()); err != nil {
				t.Error(err)
			}
			eventually(t, "the command for the fast path is named", func() error {
				if f := a.status().Backend.FastPath; lacks != nil && f != nil && !strings.Contains(strings.Join(f.Off, "\n"), "modprobe -a nf_tables nft_ct") {
					return fmt.Errorf("nft: %v; it is off for %q", lacks, f.Off)
				}
				return nil
			})
			da.stop()
			if out, err := output(t, a.Host, programs.flannel, "cleanup", "-network=10.5.0.0/16"); err != nil {
				t.Errorf("cleanup: %v\n%s", err, out)
			}
		})
	}
}

// A daemon that needs a TUN device, and has none, does not start.
func TestMissingTUN(t *testing.T) {
	for _, config := range []string{`{"Type": "udp"}`, `{"Type": "wireguard", "Datapath": "userspace"}`} {
		t.Run(config, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(config)
			refuses(t, c.node("a").launchMounted("mount -t tmpfs none /dev/net"), "modprobe tun", "--device=/dev/net/tun")
		})
	}
}

// On a kernel without IPv6, the daemon carries IPv4, and the status has the remedy.
func TestMissingIPv6(t *testing.T) {
	const setup, remedy = "[ ! -d /proc/sys/net/ipv6 ] || mount -t tmpfs none /proc/sys/net/ipv6", "start it without ipv6.disable=1"
	c := newCluster(t, "3")
	c.configure(familyConfig("46", `{"Type": "vxlan"}`))
	a := c.node("a")
	a.launchMounted(setup).ready()
	if s := a.status(); !strings.Contains(strings.Join(s.FamilyProblems, "; "), remedy) {
		t.Errorf("problems %q", s.FamilyProblems)
	}
}

// Without what the fast path needs, the daemon goes on. Its status names it.
func TestMissingConntrack(t *testing.T) {
	c := newCluster(t, "3")
	noConntrack := c.lab.Host("probe").Do(func() error {
		_, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		return err
	})
	_, noTypes := os.Stat("/sys/kernel/btf/vmlinux")
	a := c.node("a", dataPathFlag+"kernel")
	a.join()
	eventually(t, "the fast path is there, or what it needs is named", func() error {
		off := strings.Join(a.status().Backend.FastPath.Off, "\n")
		switch lacks := strings.Contains(off, "the kernel lacks"); {
		case noConntrack != nil && strings.Contains(off, "modprobe -a nf_conntrack"),
			noConntrack == nil && noTypes != nil && strings.Contains(off, "CONFIG_DEBUG_INFO_BTF"),
			noConntrack == nil && noTypes == nil && !lacks:
			return nil
		case noConntrack == nil && noTypes == nil && strings.Contains(off, "need Linux 6.0 or newer"):
			netnstest.ConntrackTimeouts.Missing(t, off)
			return nil
		}
		return fmt.Errorf("it is off for %q; conntrack: %v; types: %v", off, noConntrack, noTypes)
	})
}
