package rtnl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RemoveRoutes deletes the routes into network that an earlier run left and that
// match returns true for. It works in the network namespace of the calling
// thread.
func RemoveRoutes(ctx context.Context, network netip.Prefix, match func(Route) bool) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	links, err := Links(h)
	if err != nil {
		return err
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	have, err := c.routes(ctx, addrFamily(network.Addr()), names)
	if err != nil {
		return err
	}
	d := new(difference)
	s := scope{config: Config{Network: network}}
	for _, r := range have {
		if r.protocol == Protocol && s.inNetwork(r) && match(r.Route) {
			d.removeRoute(r)
		}
	}
	if len(d.remove) > 0 {
		log.Infof("remove routes of an earlier run network=%v routes=%d", network, len(d.remove))
	}
	return errors.Join(c.do(ctx, d.remove), summary(d.failed))
}

// RetryDump repeats a dump of package netlink that changes interrupted; what names
// it in the error.
func RetryDump(what string, dump func() error) error {
	return retried(what, func() {}, func() error {
		err := dump()
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			return errInterrupted
		}
		return err
	})
}
