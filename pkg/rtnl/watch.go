package rtnl

import (
	"bytes"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// concerns reports whether a datagram announces something that differs from what
// is desired. Our own changes are announced, too, and agree with it. If one is
// received so late that it no longer agrees, it costs a pass.
func (r *Reconciler) concerns(datagram []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m := range messages(datagram) {
		if r.differs(scope{r.config, r.known}, m) { // promise: kernel-change-is-repaired
			return true
		}
	}
	return false
}

func (r *Reconciler) differs(s scope, m message) bool {
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return r.obstructed || s.hasLink(m.body)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return r.obstructed || len(m.body) >= unix.SizeofIfAddrmsg && s.hasIndex(int(uint32Of(m.body[4:])))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.routeDiffers(s, m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok := parseNeigh(m.body)
		if !ok || n.link != s.device() {
			return false
		}
		if n.family == unix.AF_BRIDGE {
			return neighDiffers(r.want.fdb, n.mac, n, m.kind)
		}
		return neighDiffers(r.want.neighs, n.ip, n, m.kind)
	}
	return false
}

func (s scope) hasIndex(index int) bool {
	return slices.Contains(slices.Collect(maps.Values(s.links)), index)
}

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

func (r *Reconciler) routeDiffers(s scope, m message) bool {
	route, ok := parseRoute(m.body, s.names())
	if !ok {
		return false
	}
	want, wanted := r.want.routes.get(route.key())
	if m.kind == unix.RTM_DELROUTE {
		return wanted // it is missing, or another program's has made way
	}
	right := wanted && route.Route == want && route.protocol == Protocol && !route.odd
	return !right && (wanted || s.owns(route))
}

func neighDiffers[K comparable, V neighEntry](want table[K, V], key K, n kernelNeigh, kind uint16) bool {
	v, wanted := want.get(key)
	if kind == unix.RTM_DELNEIGH {
		return wanted
	}
	our := v.ours(n.link)
	right := wanted && n.permanent() && n.mac == our.mac && n.ip == our.ip
	return !right && (wanted || n.permanent())
}
