// Package policy finds the host's own rules about the udp backend's datagrams:
// policies of IPsec, and rules of netfilter. The datagrams of the kernel data path
// pass neither, so a host with such rules must not use it.
//
// A rule is found if it can concern a datagram of [Datagrams]. The package does not
// decide the fate of each packet: the kernel does that for those of a socket.
package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/reconcile"
)

// Datagrams are those between this host and its peers: UDP, to Port.
type Datagrams struct {
	Local netip.Addr
	Port  uint16
	Peers []netip.Addr
}

// Reader reads the host's rules, and learns of changes. One goroutine may call Find
// at a time.
type Reader struct {
	xfrm      *netlink.Handle   // nil: the kernel has no IPsec
	requests  *nl.NetlinkSocket // of IPsec, for what the library lacks
	nft       *nftables.Conn    // nil: the kernel has no nftables
	listeners []*reconcile.Listener
}

// Open opens the sockets, in the network namespace of the calling thread. Run misses
// no change from then on.
func Open() (_ *Reader, err error) {
	r := new(Reader)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open the host's policies: %w", err), r.Close())
		}
	}()
	for _, family := range []struct{ number, group int }{
		{unix.NETLINK_XFRM, nl.XFRMNLGRP_POLICY}, {unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES},
	} {
		l, err := reconcile.Listen(family.number, family.group)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r.listeners = append(r.listeners, l)
		if family.number == unix.NETLINK_XFRM {
			if r.requests, err = nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_XFRM); err == nil {
				r.xfrm, err = netlink.NewHandle(unix.NETLINK_XFRM)
			}
		} else {
			r.nft, err = nftables.New(nftables.AsLasting())
		}
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// absent reports whether the kernel lacks a netlink family.
func absent(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)
}

// Run calls changed after the policies or rules have changed, until ctx ends.
func (r *Reader) Run(ctx context.Context, changed func()) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range r.listeners {
		g.Go(func() error { return l.Run(ctx, nil, changed) })
	}
	return g.Wait()
}

// Close closes the sockets. Run must have returned.
func (r *Reader) Close() error {
	var errs []error
	for _, l := range r.listeners {
		errs = append(errs, l.Close())
	}
	if r.requests != nil {
		r.requests.Close()
	}
	if r.xfrm != nil {
		r.xfrm.Close()
	}
	if r.nft != nil {
		errs = append(errs, r.nft.CloseLasting())
	}
	return errors.Join(errs...)
}

// Find returns a rule that concerns the datagrams as text, "" if there is none. The
// error is that of reading.
func (r *Reader) Find(d Datagrams) (rule string, err error) {
	if rule, err = r.findIPsec(d); rule != "" || err != nil {
		return rule, err
	}
	return r.findNetfilter(d)
}
