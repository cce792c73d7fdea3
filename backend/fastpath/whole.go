package fastpath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
)

// A super-packet that the tunnel's program has unwrapped keeps the mark of a tunnel. No
// helper of the kernel removes the mark before Linux 7.3. A device without tunnel offload
// cuts such a packet in software: a bridge up to Linux 6.18, and a macvlan device. The
// program `whole` at the egress of the device redirects the packet to the next device.
// That is a port of the bridge (br_forward in net/bridge/br_forward.c), or the device
// below the macvlan device (macvlan_queue_xmit in drivers/net/macvlan.c). Such packets
// have passed the host's rules, but for those of the device itself.

// detours are the ways of super-packets past devices.
type detours struct {
	// devices are the gateways' devices that packets may pass by, or that may cut
	// them, by index.
	devices map[uint32]bool
	exits   map[fastpathStation]fastpathExit
}

// detours has no way past a device whose rules or queues the packets must meet.
func (p *Path) detours(t topology, f findings) detours {
	d := detours{make(map[uint32]bool), make(map[fastpathStation]fastpathExit)}
	if p.config.direct() {
		return d // nothing is unwrapped
	}
	past := make(map[uint32]bool)
	for _, g := range t.gateways {
		if g.kind == wholeDevice || g.index == p.config.Device {
			continue
		}
		d.devices[uint32(g.index)] = true
		past[uint32(g.index)] = f.whyCut(g) == ""
	}
	for s, way := range t.stations {
		if past[s.Bridge] && f.closed[int(way.Index)] == "" {
			d.exits[s] = way
		}
	}
	return d
}

func (p *programs) setDetours(d detours) error {
	exits, cuts, zero := make(map[fastpathStation]fastpathExit), make(map[uint32]uint64), make(map[uint32]uint64)
	for device := range d.devices {
		zero[device] = 0
	}
	return errors.Join(
		readMap(p.Exits, exits, func(*fastpathExit) {}),
		readMap(p.Cuts, cuts, func(n *uint64) { *n = 0 }),
		change(p.Exits, exits, d.exits),
		change(p.Cuts, cuts, zero))
}

// whyCut returns the reason why super-packets must not pass a device by; empty: they may.
func (f findings) whyCut(g gateway) string {
	switch {
	case g.kind == otherDevice:
		return "it has no tunnel offload"
	case g.kind == vlanBridge:
		return "it filters VLANs"
	case g.kind == bridgeDevice && f.bridgeRule != "":
		return f.bridgeRule
	}
	return f.gateways[g.index]
}

// cutReasons returns the reasons why super-packets must not pass devices by, by index.
func (f findings) cutReasons(t topology) map[uint32]string {
	reasons := make(map[uint32]string)
	for _, g := range t.gateways {
		if reason := f.whyCut(g); reason != "" {
			reasons[uint32(g.index)] = fmt.Sprintf("%s cuts super-packets: %s", g.name, reason)
		}
	}
	return reasons
}

// cut returns the reasons of devices that have cut super-packets, in order.
func (p *programs) cut(reasons map[uint32]string) (cut []string) {
	for index, reason := range reasons {
		var n uint64
		if err := p.Cuts.Lookup(index, &n); err == nil && n > 0 { // an error: the device has no counter
			cut = append(cut, reason)
		}
	}
	slices.Sort(cut)
	return cut
}

// bridgeRule names a chain with rules about what a bridge sends; empty: there is none.
func bridgeRule(rules *hostrules.Ruleset) string {
	for _, c := range rules.Bases {
		sends := c.Hook == unix.NF_INET_LOCAL_OUT || c.Hook == unix.NF_INET_POST_ROUTING // as NF_BR_LOCAL_OUT, NF_BR_POST_ROUTING
		if c.Family == nftables.TableFamilyBridge && sends && (len(c.Rules) > 0 || c.Drops) {
			return fmt.Sprintf("chain %v", c)
		}
	}
	return ""
}
