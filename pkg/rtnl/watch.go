package rtnl

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// announcements is the receive buffer for what the kernel tells: room for the
// echo of our own first pass over some ten thousand peers.
const announcements = 8 << 20

// watcher hears the kernel's announcements and wakes its keeper for those that
// make the kernel's state differ from what is desired. Our own changes are
// announced, too: they agree with it, and where they are heard so late that
// they no longer do, a pass too many is all that it costs.
type watcher struct {
	keeper *Keeper
	sock   *socket.Conn
}

// group is the bit of a multicast group in a socket's address (netlink(7)).
func group(n int) uint32 { return 1 << (n - 1) }

func watch(k *Keeper) (*watcher, error) {
	groups := group(unix.RTNLGRP_LINK) | group(unix.RTNLGRP_NEIGH) |
		group(unix.RTNLGRP_IPV4_IFADDR) | group(unix.RTNLGRP_IPV4_ROUTE)
	if k.config.Network.Addr().Is6() {
		groups |= group(unix.RTNLGRP_IPV6_IFADDR) | group(unix.RTNLGRP_IPV6_ROUTE)
	}
	sock, err := openSocket(groups)
	if err != nil {
		return nil, err
	}
	if err := sock.SetReadBuffer(announcements); err != nil {
		return nil, errors.Join(fmt.Errorf("set receive buffer of route netlink: %w", err), sock.Close())
	}
	return &watcher{k, sock}, nil
}

func (w *watcher) close() error { return w.sock.Close() }

// run reads until ctx ends (nil) or the socket fails.
func (w *watcher) run(ctx context.Context) error {
	buf := make([]byte, receiveSize)
	for {
		n, _, _, _, err := w.sock.Recvmsg(ctx, buf, nil, 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost, perhaps one for us
			w.keeper.poke()
		case err != nil:
			return fmt.Errorf("receive from route netlink: %w", err)
		default:
			for m := range messages(buf[:n]) {
				if w.keeper.concerns(m) {
					w.keeper.poke()
				}
			}
		}
	}
}

// concerns reports whether an announcement speaks of a difference.
func (k *Keeper) concerns(m message) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := scope{k.config, k.known}
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return s.hasLink(m.body)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return len(m.body) >= unix.SizeofIfAddrmsg && s.hasIndex(int(uint32Of(m.body[4:])))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return k.routeDiffers(s, m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok := parseNeigh(m.body)
		return ok && n.link == s.device() && k.neighDiffers(m.kind == unix.RTM_DELNEIGH, n)
	}
	return false
}

func (s scope) hasIndex(index int) bool {
	for _, i := range s.links {
		if i == index {
			return true
		}
	}
	return false
}

// hasLink goes by the name too: an interface that comes back has a new index.
func (s scope) hasLink(body []byte) bool {
	if len(body) < unix.SizeofIfInfomsg {
		return false
	}
	if s.hasIndex(int(uint32Of(body[4:]))) {
		return true
	}
	for kind, value := range attributes(body, unix.SizeofIfInfomsg) {
		if kind == unix.IFLA_IFNAME {
			name := string(bytes.TrimRight(value, "\x00"))
			return name == s.config.Device || name == s.config.Uplink
		}
	}
	return false
}

func (k *Keeper) routeDiffers(s scope, m message) bool {
	names := make(map[int]string, len(s.links))
	for name, index := range s.links {
		names[index] = name
	}
	r, ok := parseRoute(m.body, names)
	if !ok {
		return false
	}
	w, wanted := k.want.routes.top(r.key())
	if m.kind == unix.RTM_DELROUTE {
		return wanted // it is missing, or what was in its way is gone
	}
	right := wanted && r.Route == w && r.protocol == Protocol && !r.odd
	return !right && (wanted || s.owns(r))
}

func (k *Keeper) neighDiffers(deleted bool, n kernelNeigh) bool {
	var wanted, right bool
	if n.family == unix.AF_BRIDGE {
		var w FDB
		w, wanted = k.want.fdb.top(n.mac)
		right = wanted && w.Dst == n.ip
	} else {
		var w Neigh
		w, wanted = k.want.neighs.top(n.ip)
		right = wanted && w.MAC == n.mac
	}
	if deleted {
		return wanted
	}
	return !(right && n.permanent()) && (wanted || n.permanent())
}
