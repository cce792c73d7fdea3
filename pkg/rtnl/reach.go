package rtnl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Reach reads the interfaces that this host's routes to other hosts name. One
// goroutine may use it at a time.
type Reach struct {
	conn  *conn
	links *netlink.Handle
}

// NewReach opens the sockets, in the network namespace of the calling thread.
func NewReach() (*Reach, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open route netlink: %w", err), c.sock.Close())
	}
	return &Reach{conn: c, links: h}, nil
}

// Close closes the sockets.
func (r *Reach) Close() error {
	r.links.Close()
	return r.conn.sock.Close()
}

// nextHops is a unicast route, as far as it leads to interfaces.
type nextHops struct {
	table uint32
	dst   netip.Prefix
	links []uint32
}

// Interfaces returns, for each address, the indexes of the interfaces that routes to
// it name, sorted. In each routing table but "local" these are the routes with the
// longest matching prefix: of any metric, with all their next hops.
// So both ways count of a host that has several, and of one that sends by one
// interface and receives by another. An address without a route is absent.
//
// For IPv4 the interface below a macvlan device counts as well, see sharedWith.
func (r *Reach) Interfaces(addrs []netip.Addr) (map[netip.Addr][]uint32, error) {
	sorted := slices.Compact(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare))
	type place struct {
		addr  netip.Addr
		table uint32
	}
	var best map[place]nextHops
	consider := func(body []byte) {
		route, ok := parseNextHops(body)
		if !ok {
			return
		}
		first, _ := slices.BinarySearchFunc(sorted, route.dst.Addr(), netip.Addr.Compare)
		for _, a := range sorted[first:] {
			if !route.dst.Contains(a) {
				break
			}
			at := place{a, route.table}
			old, found := best[at]
			switch {
			case !found || route.dst.Bits() > old.dst.Bits():
				best[at] = route
			case route.dst == old.dst:
				old.links = slices.Concat(old.links, route.links)
				best[at] = old
			}
		}
	}
	_, err := RetryDump("routes", func() ([]struct{}, error) {
		best = make(map[place]nextHops)
		var errs []error
		for _, family := range families(sorted) {
			request := [unix.SizeofRtMsg]byte{family}
			errs = append(errs, r.conn.dump(unix.RTM_GETROUTE, request[:], consider))
		}
		return nil, errors.Join(errs...)
	})
	if err != nil {
		return nil, err
	}
	found := make(map[netip.Addr][]uint32, len(sorted))
	for at, route := range best {
		found[at.addr] = append(found[at.addr], route.links...)
	}
	shared := make(map[uint32][]uint32)
	for _, a := range sorted {
		if len(found[a]) == 0 {
			// A next hop object that the kernel does not expand
			// (net.ipv4.nexthop_compat_mode 0, for both families), or no route.
			if routes, err := r.links.RouteGet(a.AsSlice()); err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_UNICAST {
				found[a] = []uint32{uint32(routes[0].LinkIndex)}
			}
		}
		if a.Is4() {
			if found[a], err = r.addShared(found[a], shared); err != nil {
				return nil, err
			}
		}
		slices.Sort(found[a])
		if found[a] = slices.Compact(found[a]); len(found[a]) == 0 {
			delete(found, a)
		}
	}
	return found, nil
}

// addShared appends to interfaces those that share ARP with them. It looks up each once
// and remembers the result in known.
func (r *Reach) addShared(interfaces []uint32, known map[uint32][]uint32) (_ []uint32, err error) {
	for _, index := range interfaces {
		more, found := known[index]
		if !found {
			if more, err = r.sharedWith(index); err != nil {
				return nil, err
			}
			known[index] = more
		}
		interfaces = append(interfaces, more...)
	}
	return interfaces, nil
}

// sharedWith returns the interface by which IPv4 packets for the addresses of another one
// arrive as well: the one below a macvlan device. Both have a hardware address on one wire,
// and each answers ARP requests for all addresses of this host (arp_ignore 0 of
// Documentation/networking/ip-sysctl.rst). The sender takes the first answer.
func (r *Reach) sharedWith(index uint32) ([]uint32, error) {
	l, err := r.links.LinkByIndex(int(index))
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up interface %d: %w", index, err)
	}
	_, is := l.(*netlink.Macvlan)
	if a := l.Attrs(); is && a.ParentIndex > 0 && a.NetNsID < 0 {
		return []uint32{uint32(a.ParentIndex)}, nil
	}
	return nil, nil
}

// families returns the address families of addrs, each once.
func families(sorted []netip.Addr) (all []uint8) {
	for _, a := range sorted {
		if f := addrFamily(a); !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all
}

// parseNextHops decodes a unicast route of any table but "local".
func parseNextHops(body []byte) (nextHops, bool) {
	if len(body) < unix.SizeofRtMsg || body[7] != unix.RTN_UNICAST {
		return nextHops{}, false
	}
	r := nextHops{table: uint32(body[4])}
	dst := unspecified(body[0])
	for kind, value := range attributes(body, unix.SizeofRtMsg) {
		switch kind {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case unix.RTA_TABLE:
			r.table = uint32Of(value)
		case unix.RTA_OIF:
			r.links = append(r.links, uint32Of(value))
		case unix.RTA_MULTIPATH:
			r.links = append(r.links, hopLinks(value)...)
		}
	}
	r.dst = netip.PrefixFrom(dst, int(body[1]))
	return r, r.table != unix.RT_TABLE_LOCAL && len(r.links) > 0
}

// hopLinks returns the interfaces of a sequence of struct rtnexthop with attributes
// (rtnetlink(7)).
func hopLinks(b []byte) (links []uint32) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(native.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		links = append(links, native.Uint32(b[4:]))
		b = b[min(padded(n), len(b)):]
	}
	return links
}
