package rtnl

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// look reads the kernel's state. Nothing of it is kept for the next pass: that
// is minutes away, and ten thousand peers take 3 MB. The caller holds mu.
func (r *Reconciler) look() (s scope, have inventory, err error) {
	links, err := indexes(r.links, r.config.Device, r.config.Uplink)
	if err != nil {
		return scope{}, inventory{}, err
	}
	s = scope{r.config, links}
	names := s.names()
	family, device := addrFamily(r.config.Network.Addr()), s.device()
	have.routes, err = r.conn.routes(r.ctx, family, names)
	if err != nil || device == 0 {
		return s, have, err
	}
	if err := r.lookNeighs("neighbours", family, device, &have.neighs); err != nil {
		return s, have, err
	}
	err = r.lookNeighs("forwarding entries", unix.AF_BRIDGE, device, &have.fdb)
	return s, have, err
}

// routes reads the main table of a family; names are those of links by index.
func (c *conn) routes(ctx context.Context, family uint8, names map[int]string) (have []kernelRoute, err error) {
	err = retried("routes", func() { have = have[:0] }, func() error {
		return c.dump(ctx, unix.RTM_GETROUTE, routeRequest(family), func(body []byte) {
			if r, ok := parseRoute(body, names); ok {
				have = append(have, r)
			}
		})
	})
	return have, err
}

func (r *Reconciler) lookNeighs(what string, family uint8, device int, into *[]kernelNeigh) error {
	return retried(what, func() { *into = (*into)[:0] }, func() error {
		return r.conn.dump(r.ctx, unix.RTM_GETNEIGH, neighRequest(family, device), func(body []byte) {
			if n, ok := parseNeigh(body); ok && n.link == device && n.family == family {
				*into = append(*into, n)
			}
		})
	})
}

// indexes returns the indexes of those links that exist.
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
