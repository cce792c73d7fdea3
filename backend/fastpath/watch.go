package fastpath

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/reconcile"
)

// watch is a subscription to the kernel's announcements.
type watch struct {
	listener *reconcile.Listener
	concerns func(datagram []byte) bool // nil: all do
}

// watch subscribes before the first look, so that no change is missed.
func (p *Path) watch() error {
	subscribe := func(concerns func([]byte) bool, family int, groups ...int) error {
		l, err := reconcile.Listen(family, groups...)
		if err == nil {
			p.watches = append(p.watches, watch{l, concerns})
		}
		return err
	}
	if err := subscribe(p.concernsLinks, unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_TC); err != nil {
		return err
	}
	if err := subscribe(concernsRules, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES); err != nil {
		return err
	}
	if err := subscribe(nil, unix.NETLINK_XFRM, xfrmGroupPolicy); !errors.Is(err, unix.EPROTONOSUPPORT) {
		return err
	}
	return nil // a kernel without IPsec
}

// runWatches also runs the windows: both end with the loop.
func (p *Path) runWatches(ctx context.Context, changed func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.windows.run(ctx) })
	for _, w := range p.watches {
		g.Go(func() error { return w.listener.Run(ctx, w.concerns, changed) })
	}
	return g.Wait()
}

// concernsRules excludes announcements of sets' elements, which change no rule.
func concernsRules(datagram []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	return err != nil || slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
		switch m.Header.Type & 0xff {
		case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN,
			unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
			return true
		}
		return false
	})
}

// concernsLinks excludes announcements of neighbours and forwarding entries
// that change no container: the kernel announces each confirmation of one.
func (p *Path) concernsLinks(datagram []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
		if m.Header.Type != unix.RTM_NEWNEIGH && m.Header.Type != unix.RTM_DELNEIGH {
			return true
		}
		n, err := netlink.NeighDeserialize(m.Data)
		return err != nil || p.looks || p.known.concerns(n, m.Header.Type == unix.RTM_DELNEIGH)
	})
}

// concerns reports whether a neighbour or forwarding entry differs from what is
// known.
func (t topology) concerns(n *netlink.Neigh, deleted bool) bool {
	if _, ours := t.names[n.LinkIndex]; !ours {
		return false
	}
	known := slices.ContainsFunc(t.containers, func(c Container) bool {
		if n.Family == unix.AF_BRIDGE {
			return c.Port == n.LinkIndex && slices.Equal(c.MAC[:], n.HardwareAddr)
		}
		return c.Bridge == n.LinkIndex && c.Addr.AsSlice() != nil && slices.Equal(c.Addr.AsSlice(), n.IP.To4()) &&
			slices.Equal(c.MAC[:], n.HardwareAddr)
	})
	valid := !deleted && (n.Family == unix.AF_BRIDGE || n.State&usable != 0)
	return known != valid
}
