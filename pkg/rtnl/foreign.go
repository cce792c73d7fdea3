package rtnl

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// foreignRoute is the reason of a refusal: another program's route.
type foreignRoute struct {
	route kernelRoute
	dev   string // empty if it is not known
}

func (f *foreignRoute) Error() string {
	via := ""
	if f.route.Via.IsValid() {
		via = fmt.Sprintf(" via %v", f.route.Via)
	}
	return fmt.Sprintf("%v: %v%s dev %s protocol %d; remove it (ip route del %[2]v dev %[4]s proto %[5]d), or change Network",
		ErrForeign, f.route.Dst, via, cmp.Or(f.dev, f.route.Dev, "unknown"), f.route.protocol)
}

func (f *foreignRoute) Unwrap() error { return ErrForeign }

// nameForeign adds to refusals the names of interfaces: docker0, or that of a VPN.
func nameForeign(h *netlink.Handle, refused []*Refusal) {
	for _, r := range refused {
		if f, ok := errors.AsType[*foreignRoute](r.Err); ok {
			if link, err := h.LinkByIndex(f.route.link); err == nil {
				f.dev = link.Attrs().Name
			}
		}
	}
}
