package hostroute

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// Resolver returns the kernel's routes for addresses of an overlay network. Its
// methods have one caller at a time.
type Resolver struct {
	handle  *netlink.Handle
	family  inet.Family
	network netip.Prefix
	own     netip.Prefix // this host's subnet
	// bridge is the index of the interface that the host's containers are behind; 0
	// if there is none.
	bridge int
}

// Open returns a Resolver for the network namespace of the calling thread. Own is
// this host's subnet in network.
func Open(network, own netip.Prefix) (*Resolver, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	return &Resolver{handle: h, family: inet.Of(network.Addr()), network: network, own: own}, nil
}

// Close releases the socket.
func (r *Resolver) Close() { r.handle.Close() }

// sample is the address that stands for a subnet: often a container's, as the
// first one is its gateway's.
func sample(subnet netip.Prefix) netip.Addr { return subnet.Addr().Next().Next() }

// Own returns an error if the kernel sends packets for this host's containers to
// another interface than that which has their subnet. It returns nil while no
// interface has it. Call it before Peer. Both see the changes that the kernel has announced
// before.
func (r *Resolver) Own() error {
	if err := rtnl.AwaitAnnounced(r.handle); err != nil {
		return err
	}
	bridge, err := r.findBridge()
	if r.bridge = bridge; bridge == 0 || err != nil {
		return err
	}
	found, err := r.lookup(sample(r.own), 0)
	switch {
	case isRefusal(err):
		return r.refused(r.own, err)
	case err != nil:
		return fmt.Errorf("look up the route to %v: %w", r.own, err)
	case found == nil:
		return nil
	}
	if r.destination(found).Bits() >= r.own.Bits() || r.isExpected(found) { // the latter if the interface is down
		return nil
	}
	return r.taken(r.own, found)
}

// findBridge returns the index of an interface with an address in our subnet and
// a network that holds the sample of it.
func (r *Resolver) findBridge() (index int, err error) {
	addrs, err := rtnl.RetryDump("addresses", func() ([]netlink.Addr, error) { return r.handle.AddrList(nil, r.family.AF()) })
	for _, a := range addrs {
		p := netdev.Prefix(*a.IPNet)
		if r.own.Contains(p.Addr()) && p.Contains(sample(r.own)) && p.Addr() != sample(r.own) {
			return a.LinkIndex, err
		}
	}
	return 0, err
}

// Peer returns an error if the kernel has another program's route for packets to
// subnet. A route that is missing is no error: package rtnl finds and adds it.
func (r *Resolver) Peer(subnet netip.Prefix) error {
	// Rules may depend on the interface and the source that packets come from.
	found, err := r.lookup(sample(subnet), r.bridge)
	if err != nil && !isRefusal(err) && r.bridge != 0 { // forwarding is off, or rp_filter refuses
		found, err = r.lookup(sample(subnet), 0)
	}
	switch {
	case isRefusal(err), errors.Is(err, unix.EHOSTUNREACH):
		return r.refused(subnet, err)
	case errors.Is(err, unix.ENETUNREACH): // it has no route at all
		return nil
	case err != nil:
		return fmt.Errorf("look up the route to %v: %w", subnet, err)
	case found == nil || r.isExpected(found):
		return nil
	}
	return r.taken(subnet, found)
}

// isExpected reports whether a route is flannel's, or the default route, which
// the kernel takes while flannel's is missing.
func (r *Resolver) isExpected(route *netlink.Route) bool {
	return route.Protocol == rtnl.Protocol || route.Table == unix.RT_TABLE_MAIN && r.destination(route).Bits() == 0
}

// lookup returns the kernel's route for a packet to dst: from our containers
// behind an interface, or from this host if that is 0. It returns nil if the
// kernel does not say which route that is (before Linux 4.13).
func (r *Resolver) lookup(dst netip.Addr, behind int) (*netlink.Route, error) {
	options := &netlink.RouteGetOptions{FIBMatch: true}
	if behind != 0 {
		options.IifIndex, options.SrcAddr = behind, sample(r.own).AsSlice()
	}
	found, err := r.handle.RouteGetWithOptions(dst.AsSlice(), options)
	if err != nil || len(found) == 0 || found[0].Flags&unix.RTM_F_CLONED != 0 {
		return nil, err
	}
	return &found[0], nil
}

// isRefusal reports whether err is that of a route or rule that refuses packets:
// of type prohibit or blackhole (fib_props in net/ipv4/fib_semantics.c,
// ip6_rt_type_to_error in net/ipv6/route.c). The error of type unreachable may have
// other causes.
func isRefusal(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}

func (r *Resolver) refused(subnet netip.Prefix, err error) error {
	kind := "unreachable"
	switch {
	case errors.Is(err, unix.EACCES):
		kind = "prohibit"
	case errors.Is(err, unix.EINVAL):
		kind = "blackhole"
	}
	return fmt.Errorf("a route or rule of type %s takes packets for %v: %w (see: ip route get %v; %s)", kind, subnet, err, sample(subnet), r.ipRule())
}

// taken describes a route of another program that gets the packets for subnet.
func (r *Resolver) taken(subnet netip.Prefix, by *netlink.Route) error {
	dev := "no interface"
	if l, err := r.handle.LinkByIndex(by.LinkIndex); err == nil {
		dev = l.Attrs().Name
	}
	remedy := fmt.Sprintf("remove that route, or give %s another network", dev)
	table := "table main"
	if by.Table != unix.RT_TABLE_MAIN {
		table = fmt.Sprintf("table %d", by.Table)
		remedy = fmt.Sprintf("a rule puts that table before the main one (%s): %s", r.ipRule(), r.rule(by.Table))
	}
	return fmt.Errorf("the kernel sends packets for %v to %s (route %v, %s), and not where flannel leads them; %s", subnet, dev, r.destination(by), table, remedy)
}

// ipRule is the command that lists the rules of the family.
func (r *Resolver) ipRule() string {
	if r.family == inet.IPv6 {
		return "ip -6 rule"
	}
	return "ip rule"
}

// rule returns the command for a rule that goes before those of a table.
func (r *Resolver) rule(table int) string {
	rules, err := r.handle.RuleList(r.family.AF())
	priority := 0
	for _, have := range rules {
		if have.Table == table && (priority == 0 || have.Priority < priority) {
			priority = have.Priority
		}
	}
	if err != nil || priority <= 1 {
		return fmt.Sprintf("let it leave out %v", r.network)
	}
	return fmt.Sprintf("%s add priority %d to %v lookup main", r.ipRule(), priority-1, r.network)
}

// destination is that of a route; 0.0.0.0/0 or ::/0 for a default route.
func (r *Resolver) destination(route *netlink.Route) netip.Prefix {
	if route.Dst == nil {
		return netip.PrefixFrom(r.family.Unspecified(), 0)
	}
	return netdev.Prefix(*route.Dst)
}
