package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Check compares the kernel's tables with what is desired, and changes nothing.
// The error lists the differences, in a line for each kind. Check returns nil
// before Reset, since what is desired is not known yet. A gateway that is not on
// the link is no difference: no pass can repair it, and Refusals has it.
//
// Check reads what a pass reads: some 15 ms for ten thousand peers.
func (r *Reconciler) Check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owners == nil {
		return nil
	}
	s, have, err := r.look()
	if err != nil {
		return err
	}
	d := r.compare(s, have)
	missing := slices.DeleteFunc(d.add, func(o operation) bool {
		route, ok := o.object.(kernelRoute)
		return ok && r.refused[route.key()] != nil && errors.Is(r.refused[route.key()], ErrNotOnLink)
	})
	return errors.Join(
		listed("the kernel lacks", missing, operation.what),
		listed("the kernel has too much", d.remove, operation.what),
		listed("the kernel cannot take", d.failed, error.Error),
		listed("the kernel has another program's route", d.refused, func(r *Refusal) string { return r.Route.String() }))
}

func (o operation) what() string {
	if r, ok := o.object.(kernelRoute); ok {
		return "route " + r.String()
	}
	return o.object.String()
}

// listed returns an error with the number of entries that share a fault and the
// names of the first few; nil if there is none.
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

// CheckUp returns an error if the device does not exist or is not as EnsureUp makes
// it. It changes nothing.
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
