package all

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend/fastpath"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/nftbatch"
	"github.com/coreos/flannel/pkg/rtnl"
)

const device = "device" // a Leftover.Kind

// Leftover is kernel state that flannel made.
type Leftover struct {
	Kind string `json:"kind"` // such as device, route, blackhole, nftables table or eBPF programs
	Name string `json:"name"`
}

// Carries reports whether packets go by it when no process runs.
func (l Leftover) Carries() bool { return l.Kind == device || l.Kind == "route" }

// String returns kind and name, such as "device flannel.1".
func (l Leftover) String() string { return l.Kind + " " + l.Name }

// Leftovers lists the kernel state of all backends for network, in the network
// namespace of the calling thread. A running daemon's state is in the list too.
func Leftovers(network netip.Prefix) ([]Leftover, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	links, err := rtnl.Links(h)
	if err != nil {
		return nil, err
	}
	left, err := devices(h, links, network)
	if err != nil {
		return nil, err
	}
	direct, directErr := directPath(network)
	inKernel, routesErr := routes(h, network)
	rules, tablesErr := tables(network)
	pinned, programsErr := programs(links, left)
	return slices.Concat(left, inKernel, rules, pinned, direct), errors.Join(routesErr, tablesErr, programsErr, directErr)
}

// RemoveLeftovers removes what Leftovers lists, except devices that a running
// daemon has locked.
func RemoveLeftovers(ctx context.Context, network netip.Prefix) error {
	return errors.Join(RemoveAll(ctx, network), rtnl.RemoveBlackholes(network), masq.Remove(network))
}

// CheckUnlocked returns an error if a running daemon has locked a device in left.
func CheckUnlocked(left []Leftover) error {
	for _, l := range left {
		if l.Kind != device {
			continue
		}
		lock, err := netdev.Lock(l.Name)
		if err != nil {
			return err
		}
		if err := lock.Close(); err != nil {
			return err
		}
	}
	return nil
}

func devices(h *netlink.Handle, links []netlink.Link, network netip.Prefix) (left []Leftover, err error) {
	for _, l := range links {
		name := l.Attrs().Name
		if !netdev.IsBackend(name) {
			continue
		}
		within, err := rtnl.Within(h, l, network)
		if err != nil {
			return nil, err
		}
		if within {
			left = append(left, Leftover{device, name})
		}
	}
	return left, nil
}

// routes lists the routes into network that carry rtnl.Protocol.
func routes(h *netlink.Handle, network netip.Prefix) (left []Leftover, err error) {
	filter := &netlink.Route{Protocol: rtnl.Protocol, Table: unix.RT_TABLE_UNSPEC}
	found, err := rtnl.Routes(h, inet.Of(network.Addr()), filter, netlink.RT_FILTER_PROTOCOL)
	for _, r := range found {
		if r.Dst == nil {
			continue
		}
		if network.Contains(netdev.Prefix(*r.Dst).Addr()) {
			kind := "route"
			if r.Type == unix.RTN_BLACKHOLE {
				kind = "blackhole"
			}
			left = append(left, Leftover{kind, r.Dst.String()})
		}
	}
	return left, err
}

func tables(network netip.Prefix) (left []Leftover, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	family := nftables.TableFamilyIPv4
	if network.Addr().Is6() {
		family = nftables.TableFamilyIPv6
	}
	found, err := conn.ListTablesOfFamily(family)
	if nftbatch.Lacking(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", netdev.ExplainPermission(err))
	}
	for _, t := range found {
		if t.Name == masq.TableName(network) {
			left = append(left, Leftover{"nftables table", t.Name})
		}
	}
	return left, nil
}

// programs lists the pinned programs of the devices in left, and of devices that
// no longer exist. Another device may belong to another network.
func programs(links []netlink.Link, left []Leftover) (more []Leftover, err error) {
	pinned, err := bpf.Pinned()
	for _, name := range pinned {
		exists := slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == name })
		if !exists || slices.Contains(left, Leftover{device, name}) {
			more = append(more, Leftover{"eBPF programs", "of " + name})
		}
	}
	return more, err
}

// directPath is the fast path of the backend host-gw.
func directPath(network netip.Prefix) ([]Leftover, error) {
	left, err := fastpath.LeftDirect(network)
	if err != nil || !left {
		return nil, err
	}
	return []Leftover{{"eBPF programs", "of " + network.String()}}, nil
}
