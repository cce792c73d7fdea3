package rtnl

import (
	"bytes"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// concerns reports whether a datagram announces something that differs from what
// is desired. Our own changes are announced, too, and agree with it. If one is
// received so late that it no longer agrees, it costs a pass.
func (r *Reconciler) concerns(datagram []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return true
	}
	for _, m := range messages {
		if r.differs(scope{r.config, r.known}, m) { // promise: kernel-change-is-repaired
			return true
		}
	}
	return false
}

func (r *Reconciler) differs(s scope, m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return r.obstructed() || s.hasLink(m.Data)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return r.obstructed() || len(m.Data) >= unix.SizeofIfAddrmsg && s.hasIndex(int(uint32Of(m.Data[4:])))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.routeDiffers(s, m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok := parseNeigh(m.Data)
		return ok && n.link == s.device() && r.neighDiffers(n, m.Header.Type)
	}
	return false
}

// obstructed reports whether another program's route is in the place of one of ours.
// Such a route may go with its link or address. The kernel announces that of the
// link or address only (net/ipv4/fib_trie.c, fib_table_flush).
func (r *Reconciler) obstructed() bool {
	for _, refusal := range r.refused {
		if errors.Is(refusal, ErrForeign) {
			return true
		}
	}
	return len(r.foreign) > 0
}

func (s scope) hasIndex(index int) bool { return s.name(index) != "" }

// hasLink compares the name, too: an interface that comes back has a new index.
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

func (r *Reconciler) routeDiffers(s scope, m syscall.NetlinkMessage) bool {
	route, ok := s.parseRoute(m.Data)
	if !ok {
		return false
	}
	wanted := r.want.routes.get(route.key()) != nil
	if m.Header.Type == unix.RTM_DELROUTE {
		return wanted // it is missing, or another program's has made way
	}
	// Another program's that is the same serves.
	return !route.is(r.want.routes) && (wanted || s.owns(&route))
}

func (r *Reconciler) neighDiffers(n kernelNeigh, kind uint16) bool {
	if n.partial {
		return false // the device's driver announces the same change with its destination
	}
	want := r.want.neighs.get(n.key())
	if kind == unix.RTM_DELNEIGH {
		return want != nil
	}
	right := want != nil && n.permanent() && n.Neigh == *want
	return !right && (want != nil || n.permanent())
}
