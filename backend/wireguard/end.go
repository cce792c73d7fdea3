package wireguard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// end is a tunnel's end on this host: a device, the families that it carries, and
// those of its datagrams.
type end struct {
	device       string
	port         int
	inner, outer []inet.Family
	// addrs are this host's addresses for other hosts, by family.
	addrs [2]netip.Addr
	// uplink is the interface of its datagrams, the first one's if there are two.
	uplink uplink.Uplink
}

// chooseEnds returns the ends on this host. Mode separate is the default where each
// family inside has an address of the host's; without one, its packets need the
// datagrams of the other family.
func chooseEnds(c backend.Config, o options) ([]end, error) {
	own := func(f inet.Family) bool { return c.Of(f).Sends() }
	missing := slices.IndexFunc(c.Inside(), func(f inet.Family) bool { return !own(f) })
	if o.mode == separate && missing >= 0 {
		return nil, fmt.Errorf("Backend.Mode %s: %w; add one, or set Mode to %q", separate, backend.NoAddress(c.Inside()[missing]), backend.ModeAuto)
	}
	if o.mode == separate || o.mode == "" && missing < 0 {
		var ends []end
		for _, f := range c.Inside() {
			e := end{device: netdev.WireGuard, port: o.ListenPort, inner: []inet.Family{f}, outer: []inet.Family{f}}
			if f == inet.IPv6 {
				e.device, e.port = netdev.WireGuardIPv6, o.ListenPortV6
			}
			ends = append(ends, e.at(c))
		}
		return ends, nil
	}
	outer, err := c.Outer(o.mode)
	if err != nil {
		return nil, err
	}
	e := end{device: netdev.WireGuard, port: o.ListenPort, inner: c.Inside(), outer: outer}.at(c)
	if other := c.Of(outer[len(outer)-1]).Uplink; other.VRF != e.uplink.VRF {
		return nil, fmt.Errorf("interfaces %s and %s are not in one VRF, as Backend.Mode %q needs; set Mode to %q, %q or %q", e.uplink.Name, other.Name, o.mode, separate, backend.ModeIPv4, backend.ModeIPv6)
	}
	return []end{e}, nil
}

// at adds the addresses and the interface.
func (e end) at(c backend.Config) end {
	for _, f := range e.outer {
		e.addrs[f] = c.Of(f).PublicIP
	}
	e.uplink = c.Of(e.outer[0]).Uplink
	return e
}

// explainPort adds the remedy if another program has the port. The kernel's WireGuard opens
// it when the device is set up (wg_open, drivers/net/wireguard/device.c).
func (e end) explainPort(err error) error {
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	option := "-port or Backend.ListenPort"
	if e.device == netdev.WireGuardIPv6 {
		option = "Backend.ListenPortV6"
	}
	return fmt.Errorf("%w; another program has UDP port %d, such as another WireGuard device (see: ss -ulpn): stop it, or choose another for all hosts with %s", err, e.port, option)
}

// attrs returns what peers need to know of the host with that private key. The
// data always encodes: it is a string and a number.
func attrs(ends []end, key wgtypes.Key) subnet.Attrs {
	a := subnet.Attrs{BackendType: Type}
	for _, e := range ends {
		data, _ := json.Marshal(leaseData{key.PublicKey().String(), e.port})
		for _, f := range e.outer {
			a.SetFamily(f, e.addrs[f], data)
		}
	}
	return a
}

// choose returns the family of the datagrams to a peer. With both, it is that of every
// generation: IPv6 serves where IPv4 is private and IPv6 is not.
func (e end) choose(peer subnet.Attrs) (inet.Family, error) {
	v4, v6 := peer.PublicIP, peer.PublicIPv6
	has := func(f inet.Family) bool { return slices.Contains(e.outer, f) && backend.Reaches(peer, f) }
	switch {
	case has(inet.IPv4) && has(inet.IPv6):
		if v4.IsPrivate() && !v6.IsPrivate() && !e.addrs[inet.IPv6].IsPrivate() {
			return inet.IPv6, nil
		}
		return inet.IPv4, nil
	case has(inet.IPv4):
		return inet.IPv4, nil
	case has(inet.IPv6):
		return inet.IPv6, nil
	}
	return 0, backend.Unreached(e.device, e.outer, peer)
}
