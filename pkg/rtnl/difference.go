package rtnl

import (
	"golang.org/x/sys/unix"
)

// inventory is the part of the kernel's state that may concern us.
type inventory struct {
	routes      []kernelRoute
	neighs, fdb []kernelNeigh
}

// scope decides what is ours; see the package comment.
type scope struct {
	config Config
	// links are the indexes of the device and the uplink by name, if they exist.
	links map[string]int
}

func (s scope) device() int { return s.links[s.config.Device] }

// names are the names of the links by index.
func (s scope) names() map[int]string {
	names := make(map[int]string, len(s.links))
	for name, index := range s.links {
		names[index] = name
	}
	return names
}

// owns reports whether a route is ours.
func (s scope) owns(r kernelRoute) bool {
	onDevice := r.Dev != "" && r.Dev == s.config.Device
	switch {
	case r.protocol == unix.RTPROT_KERNEL:
		return false // it follows from an address
	case r.protocol == Protocol && onDevice:
		return true // into an earlier network, too
	case r.protocol == Protocol && r.Kind == Link:
		return false // another flannel's tunnel; the route goes with that device
	}
	return (r.protocol == Protocol || onDevice) && s.inNetwork(r)
}

func (s scope) inNetwork(r kernelRoute) bool {
	n := s.config.Network
	return r.Dst.Bits() >= n.Bits() && n.Contains(r.Dst.Addr())
}

// difference is what makes the kernel as desired.
type difference struct {
	// remove runs first: surplus entries may be in the way. withdraw runs last,
	// and grows while the others run.
	remove, add, withdraw []operation
	refused               []*Refusal
	// failed collects the failures of operations.
	failed []error
}

func (d *difference) fail(err error) { d.failed = append(d.failed, err) }

// is reports whether h is what is desired at its key.
func (h kernelRoute) is(want table[routeKey, Route]) bool {
	w, wanted := want.get(h.key())
	return wanted && h.Route == w && !h.odd
}

// routes compares routes. It is called last: when a route to a peer appears, the
// neighbour and the forwarding entry are in place.
func (d *difference) routes(s scope, want table[routeKey, Route], have []kernelRoute) {
	right := make(map[routeKey]bool, len(want))
	for _, h := range have {
		if h.protocol == Protocol && h.is(want) {
			right[h.key()] = true
		}
	}
	wrong := make(map[routeKey]kernelRoute) // replaced in one step
	foreign := make(map[routeKey]kernelRoute)
	for _, h := range have {
		key := h.key()
		_, wanted := want[key]
		_, replaced := wrong[key]
		switch {
		case right[key] && h.is(want):
		case h.protocol == unix.RTPROT_KERNEL && wanted:
			foreign[key] = h
		case h.is(want): // the same with another protocol: take it over
			wrong[key] = h
		case s.owns(h) && wanted && !right[key] && !replaced:
			wrong[key] = h
		case s.owns(h):
			d.removeRoute(h)
		case wanted:
			foreign[key] = h
		}
	}
	for key := range want {
		w, _ := want.get(key)
		f, inTheWay := foreign[key]
		old, replaced := wrong[key]
		switch {
		case right[key]:
		case replaced:
			d.replaceRoute(s, w, old)
		case inTheWay:
			d.refused = append(d.refused, &Refusal{w, foreignRoute{f}})
		default:
			d.addRoute(s, w)
		}
	}
}

func (d *difference) addRoute(s scope, w Route) { d.putRoute(s, w, unix.NLM_F_EXCL, func() {}) }

// replaceRoute puts w in place of old. If w is refused, old is deleted all the
// same: it would lead packets to a host that does not expect them.
func (d *difference) replaceRoute(s scope, w Route, old kernelRoute) {
	d.putRoute(s, w, unix.NLM_F_REPLACE, func() { d.withdraw = append(d.withdraw, d.deletion(old)) })
}

// putRoute calls refused after the kernel refused w.
func (d *difference) putRoute(s scope, w Route, how uint16, refused func()) {
	link, exists := s.links[w.Dev]
	if w.Dev != "" && !exists {
		d.fail(&absent{w.Dev})
		return
	}
	d.add = append(d.add, operation{unix.RTM_NEWROUTE, unix.NLM_F_CREATE | how, ourRoute(w, link), func(err error) {
		if r := refusal(w, err); r != nil {
			d.refused = append(d.refused, r)
			refused()
			return
		}
		d.fail(&failure{"add route " + w.String(), err})
	}})
}

func (d *difference) removeRoute(h kernelRoute) { d.remove = append(d.remove, d.deletion(h)) }

func (d *difference) deletion(h kernelRoute) operation {
	return operation{unix.RTM_DELROUTE, 0, h, func(err error) {
		if !isNotFound(err) {
			d.fail(&failure{"delete route " + h.String(), err})
		}
	}}
}

// compareNeighs compares the neighbours or the forwarding entries of the device. It
// leaves those that the kernel learned, unless one has the address of ours. The
// kernel may have several destinations for one MAC; ours have one.
func compareNeighs[K comparable, V neighEntry](d *difference, s scope, want table[K, V], have []kernelNeigh, key func(kernelNeigh) K) {
	right := make(map[K]bool, len(want))
	device := s.device()
	for _, h := range have {
		v, wanted := want.get(key(h))
		our := v.ours(device)
		switch {
		case wanted && h.permanent() && h.mac == our.mac && h.ip == our.ip:
			right[key(h)] = true
		case h.permanent() && (!wanted || h.family == unix.AF_BRIDGE):
			d.removeNeigh(h)
		}
	}
	for k := range want {
		if v, _ := want.get(k); !right[k] {
			d.putNeigh(s, v.ours(device))
		}
	}
}

// putNeigh adds n, which is on the device.
func (d *difference) putNeigh(s scope, n kernelNeigh) {
	if n.link == 0 {
		d.fail(&absent{s.config.Device})
		return
	}
	d.add = append(d.add, operation{unix.RTM_NEWNEIGH, unix.NLM_F_CREATE | unix.NLM_F_REPLACE, n, func(err error) {
		d.fail(&failure{"add " + n.String(), err})
	}})
}

func (d *difference) removeNeigh(n kernelNeigh) {
	d.remove = append(d.remove, operation{unix.RTM_DELNEIGH, 0, n, func(err error) {
		if !isNotFound(err) {
			d.fail(&failure{"delete " + n.String(), err})
		}
	}})
}
