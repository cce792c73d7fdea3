// Package uplink finds the interface that encapsulated packets leave by, for outer
// headers of one family. The families may have different interfaces.
//
// The operator names the interface or describes it. The default is the interface of
// the default route. At boot the daemon often starts before DHCP has finished, so
// the package can wait for a default route, an address or a link. A choice that can
// never succeed is an error at once.
package uplink

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
)

// errNotReady is an error of Find that may go away: an interface without an
// address, a host without a default route. Any other error is final.
var errNotReady = errors.New("not ready yet")

// Uplink is a network interface and the address of it that we use.
type Uplink struct {
	// Index and Name are the kernel's.
	Index int
	Name  string
	// MTU is the interface's, in bytes.
	MTU int
	// Addr is the source address of encapsulated packets.
	Addr netip.Addr
	// VRF is the VRF that the interface belongs to (Documentation/networking/vrf.rst);
	// empty: to none. A socket that is not bound to it does not have Addr.
	VRF string
	// Reason is the reason for the choice, for the log.
	Reason string
}

// Choice is the operator's description of the interface. Ifaces come first, in
// their order, then Regexes, then CanReach. The first that gives a usable interface
// wins. The zero Choice is the interface of the IPv4 default route.
type Choice struct {
	// Family is that of the uplink's address. An address of the other family
	// describes its interface.
	Family inet.Family
	// Ifaces are names or addresses of interfaces (-iface).
	Ifaces []string
	// Regexes match an interface's name or one of its addresses, anywhere in
	// it, in the syntax of package regexp (-iface-regex).
	Regexes []string
	// CanReach is an address: the interface is that of the kernel's route to it
	// (-iface-can-reach).
	CanReach string
}

// Of returns the choice for a family.
func (c Choice) Of(f inet.Family) Choice {
	c.Family = f
	return c
}

// IsZero reports whether c leaves the choice to the default route.
func (c Choice) IsZero() bool { return len(c.Ifaces) == 0 && len(c.Regexes) == 0 && c.CanReach == "" }

// pick applies c to the state of the host.
func (c Choice) pick(h host, r routes) (Uplink, error) {
	if c.IsZero() {
		return h.byDefaultRoute(r)
	}
	exprs, err := c.compile()
	if err != nil {
		return Uplink{}, err
	}
	// One that fails for good is skipped if another may succeed.
	var failed []error
	try := func(u Uplink, err error) bool {
		if err != nil {
			failed = append(failed, err)
		}
		return err == nil
	}
	for _, name := range c.Ifaces {
		if u, err := h.byNameOrAddr(name, r); try(u, err) {
			return u, nil
		}
	}
	for _, expr := range exprs {
		if u, err := h.byRegexp(expr); try(u, err) {
			return u, nil
		}
	}
	if c.CanReach != "" {
		if u, err := h.byReach(c.CanReach, r); try(u, err) {
			return u, nil
		}
	}
	return Uplink{}, joined(failed)
}

func (c Choice) compile() ([]*regexp.Regexp, error) {
	var exprs []*regexp.Regexp
	for _, s := range c.Regexes {
		expr, err := regexp.Compile(s)
		if err != nil {
			return nil, fmt.Errorf("parse -iface-regex=%s: %w", s, err)
		}
		exprs = append(exprs, expr)
	}
	return exprs, nil
}

// joined returns the failures of all as one error on one line. It is errNotReady if
// one of them is.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	msg := make([]string, len(errs))
	for i, err := range errs {
		msg[i] = strings.TrimSuffix(err.Error(), ": "+errNotReady.Error())
	}
	text := strings.Join(msg, "; ")
	if slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, errNotReady) }) {
		return notReady("%s", text)
	}
	return errors.New(text)
}

func notReady(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errNotReady)
}
