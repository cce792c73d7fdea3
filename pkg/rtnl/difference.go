package rtnl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// scope decides what is ours; see the package comment.
type scope struct {
	config Config
	// links are the indexes of the device and the uplink by name, if they exist.
	links map[string]int
}

func (s scope) device() int { return s.links[s.config.Device] }

// name returns the name of the device or the uplink; "" for any other index.
func (s scope) name(index int) string {
	for name, i := range s.links {
		if i == index {
			return name
		}
	}
	return ""
}

// owns reports whether a route is ours: only our own routes have our number.
func (s scope) owns(r *kernelRoute) bool {
	switch {
	case r.protocol != Protocol, (r.Kind == Blackhole) != s.config.Blackholes:
		return false
	case r.Dev != "" && r.Dev == s.config.Device:
		return true // into an earlier network, too
	case r.Kind == Link:
		return false // another flannel's tunnel; the route goes with that device
	}
	return s.inNetwork(r)
}

func (s scope) inNetwork(r *kernelRoute) bool {
	n := s.config.Network
	return r.Dst.Bits() >= n.Bits() && n.Contains(r.Dst.Addr())
}

// difference is what makes the kernel as desired.
type difference struct {
	// remove runs first: surplus entries may be in the way. withdraw runs last,
	// and grows while the others run.
	remove, add, withdraw []operation
	refused               []*Refusal
	// foreign are another program's routes in the places of ours.
	foreign map[routeKey]*kernelRoute
	// failed collects the failures of operations.
	failed []error
}

func (d *difference) fail(format string, args ...any) {
	d.failed = append(d.failed, fmt.Errorf(format, args...))
}

// is reports whether h is what is desired at its key.
func (h *kernelRoute) is(want table[routeKey, Route]) bool {
	w := want.get(h.key())
	return w != nil && h.Route == *w && !h.odd
}

// routes compares routes. It is called last: when a route to a peer appears, the
// neighbour and the forwarding entry are in place.
func (d *difference) routes(s scope, want table[routeKey, Route], have []kernelRoute) {
	right := make(map[routeKey]bool, len(want))
	for i := range have {
		if h := &have[i]; h.protocol == Protocol && h.is(want) {
			right[h.key()] = true
		}
	}
	wrong := make(map[routeKey]*kernelRoute) // replaced in one step
	d.foreign = make(map[routeKey]*kernelRoute)
	for i := range have {
		h := &have[i]
		key := h.key()
		wanted := want.get(key) != nil
		switch {
		case !s.owns(h):
			if wanted && d.foreign[key] == nil { // the kernel takes the first
				d.foreign[key] = h
			}
		case right[key] && h.is(want):
		case wanted && !right[key] && wrong[key] == nil:
			wrong[key] = h
		default:
			d.removeRoute(*h)
		}
	}
	for key := range want {
		w, f := *want.get(key), d.foreign[key]
		switch {
		case right[key]:
		case f == nil:
			d.putRoute(s, w, wrong[key])
		default:
			if wrong[key] != nil { // a replacement could take theirs
				d.removeRoute(*wrong[key])
			}
			// A route of the kernel's goes with an address; any other serves if it is
			// the same.
			if !f.is(want) || f.protocol == unix.RTPROT_KERNEL { // promise: same-route-of-others-serves
				d.refused = append(d.refused, &Refusal{w, &foreignRoute{route: *f}})
			}
		}
	}
}

// putRoute adds w, in place of old if that is not nil. If the kernel refuses w,
// old is deleted all the same: it would lead packets to a host that does not
// expect them.
func (d *difference) putRoute(s scope, w Route, old *kernelRoute) {
	link, exists := s.links[w.Dev]
	if w.Dev != "" && !exists {
		d.fail("interface %s does not exist", w.Dev)
		return
	}
	var how uint16 = unix.NLM_F_EXCL
	if old != nil {
		how = unix.NLM_F_REPLACE
	}
	d.add = append(d.add, operation{unix.RTM_NEWROUTE, unix.NLM_F_CREATE | how, ourRoute(w, link), func(err error) {
		r := refusal(w, err)
		if r == nil {
			d.fail("add route %v: %w", w, err)
			return
		}
		d.refused = append(d.refused, r)
		if old != nil {
			d.withdraw = append(d.withdraw, d.deletion(unix.RTM_DELROUTE, *old))
		}
	}})
}

// refusal returns a Refusal for an error that lasts until links, addresses or
// routes change. It returns nil for a transient error.
func refusal(r Route, err error) *Refusal {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EINVAL):
		return &Refusal{r, fmt.Errorf("%w of %s: %w", ErrNotOnLink, r.Dev, err)}
	case errors.Is(err, unix.EEXIST):
		return &Refusal{r, fmt.Errorf("%w: %w", ErrForeign, err)}
	}
	return nil
}

func (d *difference) removeRoute(r kernelRoute) {
	d.remove = append(d.remove, d.deletion(unix.RTM_DELROUTE, r))
}

// deletion deletes an object. It succeeds if the object does not exist: the kernel
// returns ESRCH for routes, ENOENT for neighbours and forwarding entries, ENODEV if
// the device does not exist.
func (d *difference) deletion(kind uint16, o object) operation {
	return operation{kind, 0, o, func(err error) {
		if !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			d.fail("delete %v: %w", o, err)
		}
	}}
}

// neighs compares the neighbours and forwarding entries of the device. It leaves
// those that the kernel learned, unless one has the address of ours. The kernel
// may have several destinations for one MAC; ours have one.
func (d *difference) neighs(s scope, want table[neighKey, Neigh], have []kernelNeigh) {
	right := make(map[neighKey]bool, len(want))
	for _, h := range have {
		w := want.get(h.key())
		switch {
		case w != nil && h.permanent() && h.Neigh == *w:
			right[h.key()] = true
		case h.permanent() && (w == nil || h.FDB):
			d.removeNeigh(h)
		}
	}
	for k := range want {
		if !right[k] {
			d.putNeigh(s, *want.get(k))
		}
	}
}

func (d *difference) putNeigh(s scope, n Neigh) {
	if s.device() == 0 {
		d.fail("interface %s does not exist", s.config.Device)
		return
	}
	d.add = append(d.add, operation{unix.RTM_NEWNEIGH, unix.NLM_F_CREATE | unix.NLM_F_REPLACE, ourNeigh(n, s.device()), func(err error) {
		d.fail("add %v: %w", n, err)
	}})
}

func (d *difference) removeNeigh(n kernelNeigh) {
	d.remove = append(d.remove, d.deletion(unix.RTM_DELNEIGH, n))
}
