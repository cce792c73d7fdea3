package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Check compares the kernel's tables with what is desired, and changes nothing.
// The error says what differs, in a line for each kind of fault. Before Sync was
// called it is not known what is desired, and nil is returned. A gateway that is
// not on the link is no difference: no pass can mend it, and Refusals has it.
//
// It reads what a pass reads: some 15 ms for ten thousand peers.
func (k *Keeper) Check() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.asked {
		return nil
	}
	// The watcher and Set go by the links as the last pass has seen them.
	known := k.known
	defer func() { k.known = known }()
	d, err := k.compare()
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(d.add, func(o operation) bool {
		r, ok := o.object.(kernelRoute)
		return ok && k.refused[r.key()] != nil && errors.Is(k.refused[r.key()], ErrNotOnLink)
	})
	return errors.Join(
		listed("the kernel lacks", missing, operation.what),
		listed("the kernel has too much", d.remove, operation.what),
		listed("the kernel cannot be told", d.failed, error.Error),
		listed("the kernel has another program's route", d.refused, func(r *Refusal) string { return r.Route.String() }))
}

func (o operation) what() string {
	if r, ok := o.object.(kernelRoute); ok {
		return "route " + r.String()
	}
	return o.object.String()
}

// listed counts what shares a fault, and names the first few; nil if there is
// nothing.
func listed[T any](fault string, all []T, name func(T) string) error {
	if len(all) == 0 {
		return nil
	}
	var names []string
	for _, v := range all[:min(len(all), maxReasons)] {
		names = append(names, name(v))
	}
	if len(all) > maxReasons {
		names = append(names, "…")
	}
	return fmt.Errorf("%s (%d): %s", fault, len(all), strings.Join(names, "; "))
}

// CheckUp is nil if the device is there and as EnsureUp makes it. It changes
// nothing.
func CheckUp(h *netlink.Handle, name string, addr netip.Prefix, mtu int) error {
	l, err := h.LinkByName(name)
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)):
		return fmt.Errorf("device %s does not exist", name)
	case err != nil:
		return fmt.Errorf("look up device %s: %w", name, err)
	case l.Attrs().Flags&net.FlagUp == 0:
		return fmt.Errorf("device %s is down", name)
	case l.Attrs().MTU != mtu:
		return fmt.Errorf("device %s has MTU %d, must have %d", name, l.Attrs().MTU, mtu)
	}
	have, err := Addrs(h, l)
	if err == nil && !slices.Equal(have, []netip.Prefix{addr}) {
		err = fmt.Errorf("device %s has addresses %v, must have %v", name, have, addr)
	}
	return err
}

// CheckRoute is nil if the main table has a route to dst by the device with
// that name.
func CheckRoute(h *netlink.Handle, dst netip.Prefix, name string) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("look up device %s: %w", name, err)
	}
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_MAIN, Dst: ipNet(dst)}
	have, err := Routes(h, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	if err == nil && len(have) == 0 {
		err = fmt.Errorf("route %v dev %s is not there", dst, name)
	}
	return err
}
