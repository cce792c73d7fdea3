package rtnl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// look reads the kernel's state, and says what of it is ours. It is made anew
// each time: between two, minutes pass, and of ten thousand peers it is 3 MB.
func (k *Keeper) look() (s scope, have inventory, err error) {
	links, err := indexes(k.links, k.config.Device, k.config.Uplink)
	if err != nil {
		return scope{}, inventory{}, err
	}
	k.known = links
	s = scope{k.config, links}
	names := make(map[int]string, len(links))
	for name, index := range links {
		names[index] = name
	}
	family := addrFamily(k.config.Network.Addr())
	err = retried("routes", func() { have.routes = have.routes[:0] }, func() error {
		return k.conn.dump(k.ctx, unix.RTM_GETROUTE, routeRequest(family), func(body []byte) {
			if r, ok := parseRoute(body, names); ok {
				have.routes = append(have.routes, r)
			}
		})
	})
	device := s.device()
	if err != nil || device == 0 {
		return s, have, err
	}
	if err := k.lookNeighs("neighbours", family, device, &have.neighs); err != nil {
		return s, have, err
	}
	err = k.lookNeighs("forwarding entries", unix.AF_BRIDGE, device, &have.fdb)
	return s, have, err
}

func (k *Keeper) lookNeighs(what string, family uint8, device int, into *[]kernelNeigh) error {
	return retried(what, func() { *into = (*into)[:0] }, func() error {
		return k.conn.dump(k.ctx, unix.RTM_GETNEIGH, neighRequest(family, device), func(body []byte) {
			if n, ok := parseNeigh(body); ok && n.link == device && n.family == family {
				*into = append(*into, n)
			}
		})
	})
}

// indexes are those of the links that exist.
func indexes(h *netlink.Handle, names ...string) (map[string]int, error) {
	found := make(map[string]int, len(names))
	for _, name := range names {
		if name == "" {
			continue
		}
		link, err := h.LinkByName(name)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up interface %s: %w", name, err)
		}
		found[name] = link.Attrs().Index
	}
	return found, nil
}
