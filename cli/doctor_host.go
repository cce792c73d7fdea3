package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
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
		return warn("sudo flannel doctor", "capabilities cannot be read: %v", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var lacks []string
	for name, c := range map[string]int{"CAP_BPF": unix.CAP_BPF, "CAP_PERFMON": unix.CAP_PERFMON} {
		if !has(c) && !has(unix.CAP_SYS_ADMIN) {
			lacks = append(lacks, name)
		}
	}
	slices.Sort(lacks)
	switch {
	case !has(unix.CAP_NET_ADMIN):
		return fail("sudo flannel doctor; and the daemon as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_BPF CAP_PERFMON in its unit",
			"CAP_NET_ADMIN is missing: devices, routes and rules cannot be made")
	case lacks != nil:
		return warn("AmbientCapabilities=CAP_NET_ADMIN CAP_BPF CAP_PERFMON in the unit, or run it as root",
			"%s is missing: the udp backend's kernel data path cannot be had", strings.Join(lacks, " and "))
	}
	return okay("CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON are there")
}

func (d *doctor) uplink(context.Context) finding {
	switch up := d.up; {
	case d.upError != nil:
		return fail("flannel doctor -iface NAME, with one of: ip -4 addr", "there is no interface to other hosts: %v", d.upError)
	case up.MTU < leastMTU:
		return warn(fmt.Sprintf("ip link set %s mtu 1500", up.Name), "%s has the MTU %d, which leaves containers less than 1280 bytes", up.Name, up.MTU)
	default:
		return okay("%s, %v, MTU %d (%s)", up.Name, up.Addr, up.MTU, up.Reason)
	}
}

// offloads are those of the uplink: without, every packet of a stream goes
// through the kernel alone.
func (d *doctor) offloads(context.Context) finding {
	if d.upError != nil {
		return finding{} // said above
	}
	o, err := netdev.OffloadsOf(d.up.Name)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return okay("%s does not tell its offloads", d.up.Name)
	}
	if err != nil {
		return warn("ethtool -k "+d.up.Name, "%v", err)
	}
	var off []string
	for _, f := range []struct {
		name string
		on   bool
	}{{"gro", o.GRO}, {"gso", o.GSO}, {"tso", o.TSO}} {
		if !f.on {
			off = append(off, f.name+" on")
		}
	}
	if off != nil {
		return warn(fmt.Sprintf("ethtool -K %s %s", d.up.Name, strings.Join(off, " ")),
			"%s works on packets one by one, which costs throughput: %s is off", d.up.Name, strings.ReplaceAll(strings.Join(off, " and "), " on", ""))
	}
	return okay("gro, gso and tso are on at %s", d.up.Name)
}

func sysctl(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/")))
	return strings.TrimSpace(string(text)), err
}

func (d *doctor) forwarding(context.Context) finding {
	value, err := sysctl("net.ipv4.ip_forward")
	switch {
	case err != nil:
		return warn("sysctl net.ipv4.ip_forward", "cannot be read: %v", err)
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
		return warn("sysctl net.ipv4.conf.all.rp_filter", "cannot be read: %v", err)
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

// kernelDataPath loads the programs, as the daemon would, and attaches them to
// nothing.
func (d *doctor) kernelDataPath(context.Context) finding {
	if d.kernelPath == nil {
		return finding{}
	}
	if err := d.kernelPath(); err != nil {
		return warn("sudo flannel doctor; Linux 6.6 or newer, with CAP_BPF and CAP_PERFMON",
			"cannot be had, so the udp backend is slower: %v", err)
	}
	return okay("its programs load, and the kernel has tcx")
}
