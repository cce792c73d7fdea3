package rtnl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// look reads the kernel's state into k.have and says what of it is ours.
func (k *Keeper) look() (scope, error) {
	links, err := indexes(k.links, k.config.Device, k.config.Uplink)
	if err != nil {
		return scope{}, err
	}
	k.known = links
	s := scope{k.config, links}
	names := make(map[int]string, len(links))
	for name, index := range links {
		names[index] = name
	}
	family := addrFamily(k.config.Network.Addr())
	err = retried("routes", func() { k.have.routes = k.have.routes[:0] }, func() error {
		return k.conn.dump(k.ctx, unix.RTM_GETROUTE, routeRequest(family), func(body []byte) {
			if r, ok := parseRoute(body, names); ok {
				k.have.routes = append(k.have.routes, r)
			}
		})
	})
	k.have.neighs, k.have.fdb = k.have.neighs[:0], k.have.fdb[:0]
	device := s.device()
	if err != nil || device == 0 {
		return s, err
	}
	if err := k.lookNeighs("neighbours", family, device, &k.have.neighs); err != nil {
		return s, err
	}
	return s, k.lookNeighs("forwarding entries", unix.AF_BRIDGE, device, &k.have.fdb)
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
