package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/uplink"
)

// leastMTU leaves containers the 1280 bytes that every link of the internet's
// newer half carries (RFC 8200, section 5), behind the headers of vxlan.
const leastMTU = 1330

func (d *doctor) tunDevice(context.Context) finding {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fail("modprobe tun", "%v: the udp backend has no device to carry packets with", err)
	}
	f.Close()
	return okay("/dev/net/tun can be opened")
}

func (d *doctor) capabilities(context.Context) finding {
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return warn("", "capabilities cannot be read: %v", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	switch {
	case !has(unix.CAP_NET_ADMIN):
		return fail("sudo flannel doctor, and the daemon as root or with AmbientCapabilities=CAP_NET_ADMIN CAP_BPF", "there is no CAP_NET_ADMIN: devices, routes and rules cannot be made")
	case !has(unix.CAP_BPF) && !has(unix.CAP_SYS_ADMIN):
		return warn("AmbientCapabilities=CAP_NET_ADMIN CAP_BPF", "there is no CAP_BPF: the kernel data path cannot be used")
	}
	return okay("CAP_NET_ADMIN and CAP_BPF are there")
}

func (d *doctor) uplink(context.Context) finding {
	up, err := uplink.Find(d.iface)
	switch {
	case err != nil:
		return fail("-iface NAME, of an interface in: ip -4 addr", "no interface to other hosts: %v", err)
	case up.MTU < leastMTU:
		return warn(fmt.Sprintf("ip link set %s mtu 1500", up.Name), "%s has the MTU %d, which leaves containers less than 1280 bytes", up.Name, up.MTU)
	}
	return okay("%s, %v, MTU %d (%s)", up.Name, up.Addr, up.MTU, up.Reason)
}

func sysctl(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/")))
	return strings.TrimSpace(string(text)), err
}

func (d *doctor) forwarding(context.Context) finding {
	value, err := sysctl("net.ipv4.ip_forward")
	switch {
	case err != nil:
		return warn("", "cannot be read: %v", err)
	case value != "1":
		return fail("sysctl -w net.ipv4.ip_forward=1", "is %s: the kernel drops what containers send to other hosts", value)
	}
	return okay("is 1")
}

// reversePath: the kernel takes the larger of the value for all interfaces and
// the interface's own (Documentation/networking/ip-sysctl.rst).
func (d *doctor) reversePath(context.Context) finding {
	devices, err := filepath.Glob("/proc/sys/net/ipv4/conf/flannel*/rp_filter")
	if err != nil || len(devices) == 0 {
		return finding{} // a device that is yet to come takes the default
	}
	all, err := sysctl("net.ipv4.conf.all.rp_filter")
	if err != nil {
		return warn("", "cannot be read: %v", err)
	}
	for _, path := range devices {
		own, err := os.ReadFile(path)
		if err != nil {
			continue // the device has gone
		}
		if max(all, strings.TrimSpace(string(own))) == "1" {
			device := filepath.Base(filepath.Dir(path))
			return warn(fmt.Sprintf("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.%s.rp_filter=2", device),
				"is strict on %s: packets from addresses that are not routed to it, as of hosts themselves, are dropped", device)
		}
	}
	return okay("is not strict on flannel's device")
}

func (d *doctor) bridgeFilter(context.Context) finding {
	value, err := sysctl("net.bridge.bridge-nf-call-iptables")
	switch {
	case err != nil:
		return okay("the module br_netfilter is not loaded, which flannel does not need")
	case value == "1":
		return okay("bridged packets pass iptables, as Docker and Kubernetes want; rules for them hold between containers of one host as well")
	}
	return okay("bridged packets pass no iptables; Kubernetes wants net.bridge.bridge-nf-call-iptables=1")
}

// firewall looks for what drops the port on its way in: a base chain at the
// input hook that drops by default, or a rule that names the port and drops.
func (d *doctor) firewall(context.Context) finding {
	conn, err := nftables.New()
	if err != nil {
		return warn("", "nftables cannot be read: %v", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return warn("sudo flannel doctor", "the rules cannot be read: %v", err)
	}
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookInput || c.Type != nftables.ChainTypeFilter {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return warn("", "rules of %s %s cannot be read: %v", c.Table.Name, c.Name, err)
		}
		decided := false
		for _, r := range rules {
			port, verdict := portAndVerdict(r)
			if port != d.port || decided {
				continue
			}
			if verdict == expr.VerdictDrop {
				return fail(fmt.Sprintf("nft delete rule %s %s %s handle %d", familyName(c.Table.Family), c.Table.Name, c.Name, r.Handle),
					"a rule in the chain %s of the table %s drops UDP port %d: no peer's packet arrives", c.Name, c.Table.Name, d.port)
			}
			decided = decided || verdict == expr.VerdictAccept
		}
		if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop && !decided {
			return warn(fmt.Sprintf("nft insert rule %s %s %s udp dport %d accept", familyName(c.Table.Family), c.Table.Name, c.Name, d.port),
				"the chain %s of the table %s drops by default, and no rule in it names UDP port %d", c.Name, c.Table.Name, d.port)
		}
	}
	return okay("nothing at this host's input drops UDP port %d", d.port)
}

// portAndVerdict reads a rule's destination port, -1 if it compares none, and
// what it does with a packet.
func portAndVerdict(r *nftables.Rule) (port int, verdict expr.VerdictKind) {
	port, verdict = -1, expr.VerdictContinue
	loaded := false // a register holds the destination port
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Payload:
			loaded = e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2
		case *expr.Cmp:
			if loaded && e.Op == expr.CmpOpEq && len(e.Data) == 2 {
				port = int(e.Data[0])<<8 | int(e.Data[1])
			}
			loaded = false
		case *expr.Verdict:
			verdict = e.Kind
		case *expr.Reject:
			verdict = expr.VerdictDrop
		}
	}
	return port, verdict
}

func familyName(f nftables.TableFamily) string {
	names := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv6: "ip6"}
	return names[f]
}

// kernelPath needs tcx, which came with Linux 6.6.
func (d *doctor) kernelPath(context.Context) finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return warn("", "the kernel does not say its version: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	var numbers []int
	for _, part := range parts[:min(2, len(parts))] {
		n, err := strconv.Atoi(part)
		if err != nil {
			return warn("", "the kernel's version %q is not understood", release)
		}
		numbers = append(numbers, n)
	}
	if slices.Compare(numbers, []int{6, 6}) < 0 {
		return warn("a kernel of 6.6 or newer, for speed only", "Linux %s has no tcx: the udp backend uses the TUN device", release)
	}
	return okay("Linux %s has tcx", release)
}
