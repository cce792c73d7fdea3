package masq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	log "github.com/golang/glog"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/xtables"
)

const (
	// repairInterval and repairBurst bound a quarrel with another program that
	// changes our rules each time.
	repairInterval = 500 * time.Millisecond
	repairBurst    = 3
)

// Run applies r, and applies it again whenever another program changes or
// deletes the table, as the reload of a firewall does ("flush ruleset"). It acts
// on the kernel's announcements, in the network namespace of the calling thread.
// Only changes of our own table wake it. Run returns nil when ctx ends, and
// leaves the table in place; see Remove. It returns an error if it cannot set
// the rules up, or if it can no longer receive announcements.
func Run(ctx context.Context, r Rules) error {
	t := table(r.Network)
	// Subscribe first: a change of the new table must not be missed.
	listener, err := reconcile.Listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", explain(err))
	}
	defer listener.Close()
	c, own, err := r.connectLasting()
	if err != nil {
		return fmt.Errorf("apply nftables rules: %w", explain(err))
	}
	defer c.CloseLasting()
	if err := r.apply(c); err != nil {
		return err
	}
	warnOfDrops(t)
	return reconcile.Loop{
		Task:     "repair nftables table=" + t.Name,
		Interval: repairInterval,
		Burst:    repairBurst,
		Changed:  reconcile.NewSignal(),
		Watch: func(ctx context.Context, changed func()) error {
			return listener.Run(ctx, func(datagram []byte) bool { return concerns(datagram, t.Name, own) }, changed)
		},
		Step: func(context.Context) error {
			ratelog.Warningf("repair nftables table=%s reason=%q", t.Name, "changed by another program")
			return r.apply(c)
		},
	}.Run(ctx)
}

// connectLasting returns a connection of one socket, and the socket's port. The
// announcement of a change has the port of the socket that requested the change
// (nlmsg_pid, netlink(7)).
func (r Rules) connectLasting() (c *nftables.Conn, port uint32, err error) {
	c, err = r.connect(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error {
		raw, err := s.SyscallConn()
		if err != nil {
			return err
		}
		var address unix.Sockaddr
		controlErr := raw.Control(func(fd uintptr) { address, err = unix.Getsockname(int(fd)) })
		if own, ok := address.(*unix.SockaddrNetlink); ok {
			port = own.Pid
		}
		return errors.Join(controlErr, err)
	}))
	return c, port, err
}

// concerns reports whether a datagram announces a change of the table, its
// chains or its rules by another socket than own, or cannot be decoded.
func concerns(datagram []byte, table string, own uint32) bool {
	changes, err := hostrules.Changes(datagram)
	return err != nil || slices.ContainsFunc(changes, func(c hostrules.Change) bool { return c.Table == table && c.Socket != own && !c.Element })
}

// warnOfDrops logs the chains of other tables whose policy drops forwarded
// packets. An accept of ours cannot overrule them.
func warnOfDrops(ours *nftables.Table) {
	c, err := nftables.New()
	if err != nil {
		return
	}
	chains, err := c.ListChains()
	if err != nil {
		ratelog.Warningf("list nftables chains reason=%q", err)
		return
	}
	for _, chain := range drops(chains, ours.Family) {
		warnOfDrop(chain.Table.Name, chain.Name)
	}
	legacy, err := xtables.Filter(unix.NF_INET_FORWARD)
	if err != nil {
		ratelog.Warningf("%v", err)
	}
	if legacy == xtables.Drop {
		warnOfDrop("filter of legacy iptables", "FORWARD")
	}
}

func warnOfDrop(table, chain string) {
	log.Warningf("forwarding blocked table=%q chain=%q policy=drop hint=%q", table, chain,
		"accept packets from and to the overlay network there, with Docker in chain DOCKER-USER")
}

func drops(chains []*nftables.Chain, family nftables.TableFamily) []*nftables.Chain {
	var found []*nftables.Chain
	for _, c := range chains {
		if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
			c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop &&
			(c.Table.Family == family || c.Table.Family == nftables.TableFamilyINet) {
			found = append(found, c)
		}
	}
	return found
}
