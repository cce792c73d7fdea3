package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/pinned"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/tun"
)

// minUplinkMTU leaves containers 1280 bytes, the minimum MTU of IPv6 (RFC 8200,
// section 5), after the headers of vxlan.
const minUplinkMTU = 1330

func checkTUN() finding {
	if err := tun.CheckAccess(); err != nil {
		return failed("modprobe tun; docker run --device=/dev/net/tun; DeviceAllow=/dev/net/tun rw in the unit", "the udp backend cannot make its device: %v", err)
	}
	return okay("/dev/net/tun can be opened")
}

func checkCapabilities() finding {
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return warn("sudo flannel doctor", "capabilities cannot be read: %v", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var missing []string
	for name, c := range map[string]int{"CAP_BPF": unix.CAP_BPF, "CAP_PERFMON": unix.CAP_PERFMON} {
		if !has(c) && !has(unix.CAP_SYS_ADMIN) {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	switch {
	case !has(unix.CAP_NET_ADMIN):
		return failed("sudo flannel doctor; and the daemon as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_BPF CAP_PERFMON in its unit",
			"CAP_NET_ADMIN is missing: flannel cannot make devices, routes and rules")
	case missing != nil:
		return warn("AmbientCapabilities=CAP_NET_ADMIN CAP_BPF CAP_PERFMON in the unit, or run it as root",
			"%s is missing: the udp backend cannot use the kernel data path", strings.Join(missing, " and "))
	}
	return okay("the process has CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON")
}

func checkUplink(f *facts) finding {
	switch up := f.uplink; {
	case f.uplinkErr != nil:
		return failed("flannel doctor -iface NAME, with a name from: ip addr", "no interface to other hosts: %v", f.uplinkErr)
	case f.uplinkLack != nil:
		return warn("ip -4 addr; ip -4 route", "no interface to other hosts by IPv4: %v", f.uplinkLack)
	case up.MTU < minUplinkMTU:
		return warn(fmt.Sprintf("ip link set %s mtu 1500", up.Name), "%s has the MTU %d, which leaves containers less than 1280 bytes", up.Name, up.MTU)
	default:
		return okay("%s, %v, MTU %d (%s)", up.Name, up.Addr, up.MTU, up.Reason)
	}
}

// checkOffloads checks the uplink's offloads. Without them, the kernel processes
// each packet of a stream alone.
func checkOffloads(f *facts) finding {
	if f.uplinkErr != nil {
		return finding{} // checkUplink fails
	}
	o, err := netdev.OffloadsOf(f.uplink.Name)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return okay("%s does not report its offloads", f.uplink.Name)
	}
	if err != nil {
		return warn("ethtool -k "+f.uplink.Name, "%v", err)
	}
	on, off := offloadNames(o, f.report)
	if off != nil {
		return warn(fmt.Sprintf("ethtool -K %s %s on", f.uplink.Name, strings.Join(off, " on ")),
			"%s processes packets one by one, which costs throughput: %s is off", f.uplink.Name, strings.Join(off, " and "))
	}
	return okay("%s are on at %s", strings.Join(on, ", "), f.uplink.Name)
}

// offloadNames returns ethtool's names of the offloads that are on, and of those that
// cost throughput by being off. veth begins without GRO, and the kernel data path is
// faster so (docs/kernels.md, "Speed"); r is nil if no daemon answers.
func offloadNames(o netdev.Offloads, r *status.Report) (on, off []string) {
	kernelPath := r != nil && r.Backend != nil && r.Backend.DataPath == "kernel"
	for _, offload := range []struct {
		name     string
		on       bool
		needless bool
	}{
		{"gro", o.GRO, kernelPath && o.Driver == "veth"},
		{"gso", o.GSO, false},
		{"tso", o.TSO, false},
	} {
		switch {
		case offload.on:
			on = append(on, offload.name)
		case !offload.needless:
			off = append(off, offload.name)
		}
	}
	return on, off
}

// sysctlPath returns the file of a parameter. A name with slashes may hold dots,
// as in sysctl(8).
func sysctlPath(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return filepath.Join("/proc/sys", name)
}

func sysctl(name string) (string, error) {
	text, err := os.ReadFile(sysctlPath(name))
	return strings.TrimSpace(string(text)), err
}

// checkReversePath checks rp_filter. The kernel uses the larger of the value for
// all interfaces and the interface's own (Documentation/networking/ip-sysctl.rst).
func checkReversePath() finding {
	paths, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
	if err != nil {
		return finding{}
	}
	device := func(path string) string { return filepath.Base(filepath.Dir(path)) }
	paths = slices.DeleteFunc(paths, func(path string) bool { return !netdev.IsFlannel(device(path)) })
	if len(paths) == 0 {
		return finding{} // a new device gets the default
	}
	common, err := sysctl("net.ipv4.conf.all.rp_filter")
	if err != nil {
		return warn("sysctl net.ipv4.conf.all.rp_filter", "cannot be read: %v", err)
	}
	for _, path := range paths {
		own, err := os.ReadFile(path)
		if err != nil {
			continue // the device was deleted
		}
		if max(common, strings.TrimSpace(string(own))) == "1" {
			name := device(path)
			return warn(fmt.Sprintf("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.%s.rp_filter=2", name),
				"is strict on %s: the kernel drops packets from addresses without a route to it, such as those of hosts", name)
		}
	}
	return okay("is not strict on flannel's device")
}

func checkBridgeFilter() finding {
	value, err := sysctl("net.bridge.bridge-nf-call-iptables")
	switch {
	case err != nil:
		return okay("the module br_netfilter is not loaded; flannel does not need it")
	case value == "1":
		return okay("bridged packets pass iptables, as Docker and Kubernetes need; its rules apply between containers of one host, too")
	}
	return okay("bridged packets do not pass iptables; Kubernetes needs net.bridge.bridge-nf-call-iptables=1")
}

// checkKernelPath checks whether this process can load the programs, and whether the
// daemon, which may have fewer rights, uses them.
func checkKernelPath(f *facts) finding {
	hooks, err := all.ProbeKernelPath()
	if err != nil {
		return warn("sudo flannel doctor; Linux 5.10 or newer, with CAP_BPF and CAP_PERFMON",
			"is not available, so the udp backend is slower: %v", err)
	}
	if slow, err := pinned.Interpreted(); slow && err == nil {
		return warn(pinned.Compile, "works, but the kernel interprets its programs, which is slow")
	}
	if why := withoutKernelPath(f.report); why != "" {
		return warn("flannel status", "the kernel loads its programs, but the daemon does not use them: %s", why)
	}
	return okay("the kernel loads its programs, and attaches them by %s", hooks)
}

// withoutKernelPath returns why a daemon with the udp backend does not use the kernel data
// path; "" if it does, or if its flag names another one.
func withoutKernelPath(r *status.Report) string {
	if r == nil || r.Backend == nil || r.Backend.Type != "udp" {
		return ""
	}
	b := r.Backend
	if b.DataPath == "" || b.DataPath == "kernel" || strings.HasPrefix(b.DataPathReason, "named by") {
		return ""
	}
	return b.DataPathReason
}

// checkNeighbours compares the number of peers with the limit of the kernel's
// neighbour table. All network namespaces share the table (net/core/neighbour.c);
// only the first shows the limit. The kernel drops packets if the table is full.
// Peers behind a router need no entry, but doctor does not know which those are.
func checkNeighbours(f *facts) finding {
	if f.report == nil || f.report.Backend == nil {
		return finding{} // checkDaemon reports it
	}
	peers := make(map[inet.Family]int)
	for _, p := range f.report.Backend.Peers {
		peers[inet.Of(p.Subnet.Addr())]++
	}
	var found finding
	for _, family := range inet.Families {
		// Each family has a table of its own.
		key := neighbourKey(family) + "3"
		text, err := sysctl(key)
		if err != nil || peers[family] == 0 && family == inet.IPv6 {
			continue
		}
		limit, err := strconv.Atoi(text)
		if err != nil {
			return warn("sysctl "+key, "the kernel's limit %q is not a number", text)
		}
		if now := checkNeighbourLimit(family, peers[family], limit); found.Verdict != verdictWarn {
			found = now
		}
	}
	return found
}

// neighbourKey is the start of the keys of a family's limits.
func neighbourKey(family inet.Family) string {
	return "net." + strings.ToLower(family.String()) + ".neigh.default.gc_thresh"
}

// checkNeighbourLimit leaves half of the table to neighbours that are not peers.
func checkNeighbourLimit(family inet.Family, peers, limit int) finding {
	if peers > limit/2 {
		key := neighbourKey(family)
		return warn("sysctl -w "+key+"2="+strconv.Itoa(4*peers)+" "+key+"3="+strconv.Itoa(8*peers),
			"the kernel's table has %d neighbours at most; with %d peers on one link it may be full, and the kernel drops packets to the others", limit, peers)
	}
	return okay("%d peers, and the kernel's table has room for %d", peers, limit)
}
