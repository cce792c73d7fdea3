// Package hostrules reads the rules of the host for packets: policies of IPsec, and
// rules of nftables. Data paths that pass by the kernel's hooks must not be used for
// packets that such rules are about.
//
// A rule is found if it can concern a packet. The package does not decide the fate of
// each packet: the kernel does that at its hooks.
package hostrules

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/reconcile"
)

// Reader reads the host's rules, and learns of changes. One goroutine may read at a
// time.
type Reader struct {
	xfrm      *xfrm          // nil: the kernel has no IPsec
	nft       *netlink.Conn  // nil: the kernel has no nftables
	sets      *nftables.Conn // of nftables, for the elements of sets
	listeners map[int]*reconcile.Listener
}

// Open opens the sockets, in the network namespace of the calling thread. Run misses
// no change from then on.
func Open() (_ *Reader, err error) {
	r := &Reader{listeners: make(map[int]*reconcile.Listener)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open the host's rules: %w", err), r.Close())
		}
	}()
	for family, group := range map[int]int{unix.NETLINK_XFRM: nl.XFRMNLGRP_POLICY, unix.NETLINK_NETFILTER: unix.NFNLGRP_NFTABLES} {
		l, err := reconcile.Listen(family, group)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r.listeners[family] = l
		if family == unix.NETLINK_XFRM {
			r.xfrm, err = openXfrm()
		} else if r.nft, err = netlink.Dial(family, &netlink.Config{Strict: true}); err == nil {
			r.sets, err = nftables.New(nftables.AsLasting())
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

// Run calls changed after policies or rules have changed, until ctx ends. It ignores
// announcements of nftables that concerns does not select; nil selects all.
func (r *Reader) Run(ctx context.Context, concerns func(datagram []byte) bool, changed func()) error {
	g, ctx := errgroup.WithContext(ctx)
	for family, l := range r.listeners {
		selected := concerns
		if family != unix.NETLINK_NETFILTER {
			selected = nil
		}
		g.Go(func() error { return l.Run(ctx, selected, changed) })
	}
	return g.Wait()
}

// Close closes the sockets. Run must have returned.
func (r *Reader) Close() error {
	var errs []error
	for _, l := range r.listeners {
		errs = append(errs, l.Close())
	}
	if r.xfrm != nil {
		r.xfrm.close()
	}
	if r.nft != nil {
		errs = append(errs, r.nft.Close())
	}
	if r.sets != nil {
		errs = append(errs, r.sets.CloseLasting())
	}
	return errors.Join(errs...)
}

// LegacyTables names the tables of iptables that are not in nftables, in the network
// namespace of the calling thread. The package does not read their rules.
func LegacyTables() ([]string, error) {
	text, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for legacy iptables: %w", err)
	}
	return strings.Fields(string(text)), nil
}
