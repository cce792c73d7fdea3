package fastpath

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
	"github.com/coreos/flannel/pkg/reconcile"
)

// watch subscribes before the first look, so that no change is missed.
func (p *Path) watch() (err error) {
	if p.rules, err = hostrules.Open(); err != nil {
		return err
	}
	groups := []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_TC}
	if p.config.direct() {
		groups = append(groups, unix.RTNLGRP_IPV4_ROUTE)
	}
	p.listener, err = reconcile.Listen(unix.NETLINK_ROUTE, groups...)
	return err
}

// runWatches also runs the windows: both end with the loop.
func (p *Path) runWatches(ctx context.Context, changed func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.windows.run(ctx) })
	g.Go(func() error { return p.listener.Run(ctx, p.concernsLinks, changed) })
	g.Go(func() error {
		return p.rules.Run(ctx, concernsRules, func() { p.rulesChanged(); changed() })
	})
	return g.Wait()
}

// concernsRules excludes changes of our own tables. The next periodic look restores a
// deleted one.
func concernsRules(datagram []byte) bool {
	changes, err := hostrules.Changes(datagram)
	return err != nil || slices.ContainsFunc(changes, func(c hostrules.Change) bool { return !ourTable(c.Table) })
}

// concernsLinks excludes announcements of neighbours and forwarding entries
// that change no container: the kernel announces each confirmation of one. It excludes
// those of routes that lead through a known uplink, of which each host has one.
func (p *Path) concernsLinks(datagram []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
		switch m.Header.Type {
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			n, err := netlink.NeighDeserialize(m.Data)
			return err != nil || p.looks || p.known.concerns(n, m.Header.Type == unix.RTM_DELNEIGH)
		case unix.RTM_NEWROUTE:
			return p.known.concernsRoute(m, p.config)
		case unix.RTM_DELROUTE: // a later look has the programs leave the uplink
			return false
		}
		return true
	})
}

// concernsRoute reports whether a new route to other hosts leads through an interface
// that is not known as an uplink.
func (t topology) concernsRoute(m syscall.NetlinkMessage, c Config) bool {
	attributes, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return true
	}
	through := 0
	for _, a := range attributes {
		switch {
		case a.Attr.Type == unix.RTA_DST:
			dst, ok := netip.AddrFromSlice(a.Value)
			if !ok || !leadsOut(netip.PrefixFrom(dst, int(m.Data[1])), c) { // rtm_dst_len
				return false
			}
		case a.Attr.Type == unix.RTA_OIF && len(a.Value) == 4:
			through = int(binary.NativeEndian.Uint32(a.Value))
		}
	}
	return !t.isOuter(through)
}

// concerns reports whether a neighbour or forwarding entry differs from what is
// known.
func (t topology) concerns(n *netlink.Neigh, deleted bool) bool {
	valid := !deleted && (n.Family == unix.AF_BRIDGE || n.State&usable != 0)
	if n.Family == unix.AF_BRIDGE {
		return t.hasNeighbour(n.MasterIndex, n.HardwareAddr) && t.leads(n.MasterIndex, n.HardwareAddr, n.LinkIndex) != valid
	}
	if slices.ContainsFunc(t.gateways, func(g gateway) bool { return g.kind == macvlanDevice && g.index == n.LinkIndex }) {
		return valid && !t.leads(n.LinkIndex, n.HardwareAddr, 0)
	}
	if _, ours := t.names[n.LinkIndex]; !ours {
		return false
	}
	if valid && !t.hasNeighbour(n.LinkIndex, n.HardwareAddr) {
		return true
	}
	known := slices.ContainsFunc(t.containers, func(c Container) bool {
		same := slices.Equal(c.MAC[:], n.HardwareAddr)
		// A neighbour that is no longer valid comes without its hardware address.
		return c.Bridge == n.LinkIndex && slices.Equal(c.Addr.AsSlice(), n.IP.To4()) && (same || !valid)
	})
	return known != valid
}

func (t topology) hasNeighbour(gateway int, mac net.HardwareAddr) bool {
	return len(mac) == len(MAC{}) && t.neighbours[fastpathStation{Bridge: uint32(gateway), Mac: MAC(mac)}]
}

// leads reports whether a gateway leads to a hardware address, by a port if that is
// not 0.
func (t topology) leads(gateway int, mac net.HardwareAddr, port int) bool {
	if len(mac) != len(MAC{}) {
		return false
	}
	way, ok := t.stations[fastpathStation{Bridge: uint32(gateway), Mac: MAC(mac)}]
	return ok && (port == 0 || int(way.Index) == port)
}
