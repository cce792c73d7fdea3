package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/pkg/subnetfile"
)

// ourDevices are the names that the backends give.
var ourDevices = regexp.MustCompile(`^flannel([0-9]+|\.[0-9]+|-wg)$`)

var cleanupCommand = command{
	name: "cleanup", summary: "remove what a flannel that no longer runs has left in the kernel",
	detail: "That is its devices, routes, nftables table and eBPF programs for one network, and nothing else; subnet.env\n" +
		"and -state-dir stay, so that the next start gets the same subnet. It refuses while a daemon runs.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		var s statusSource
		s.register(fs)
		from := fs.String("subnet-file", "/run/flannel/subnet.env", "`file` that flannel has written, for the network")
		given := fs.String("network", "", "`CIDR` of the network, where that file is gone")
		dryRun := fs.Bool("dry-run", false, "say what would be removed, and remove nothing")
		force := fs.Bool("force", false, "do it although a daemon answers; what that daemon holds stays")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, _ []string) error {
			network, err := cleanupNetwork(*given, *from)
			if err != nil {
				return err
			}
			c := cleanup{p: p, network: network}
			before, err := c.list()
			if err != nil {
				return err
			}
			if !*dryRun {
				if !*force {
					if err := refuseRunning(ctx, &s, before); err != nil {
						return err
					}
				}
				if err := errors.Join(all.RemoveAll(ctx, network), masq.Remove(network)); err != nil {
					return err
				}
				left, err := c.list()
				if err != nil {
					return err
				}
				if len(left) > 0 && !*force {
					return fmt.Errorf("%s is still there", left[0])
				}
				before = slices.DeleteFunc(before, func(o object) bool { return slices.Contains(left, o) })
			}
			return p.printCleanup(before, *dryRun, *asJSON)
		}
	},
}

func (p *Program) printCleanup(objects []object, dryRun, asJSON bool) error {
	if asJSON {
		return printJSON(p.Stdout, append([]object{}, objects...))
	}
	verb := "removed"
	if dryRun {
		verb = "would remove"
	}
	for _, o := range objects {
		fmt.Fprintf(p.Stdout, "%s %s\n", verb, o)
	}
	if len(objects) == 0 {
		fmt.Fprintln(p.Stdout, "there is nothing to remove")
	}
	return nil
}

// cleanupNetwork is the network to clean up.
func cleanupNetwork(given, file string) (netip.Prefix, error) {
	if given != "" {
		n, err := netip.ParsePrefix(given)
		if err != nil {
			return n, fmt.Errorf("-network: %w", err)
		}
		return n.Masked(), nil
	}
	env, err := subnetfile.Read(file)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("find out the network, or say it with -network: %w", err)
	case !env.Network.IsValid():
		return netip.Prefix{}, fmt.Errorf("%s does not say the network; say it with -network", file)
	}
	return env.Network, nil
}

// refuseRunning is an error while a daemon answers, or holds one of objects.
func refuseRunning(ctx context.Context, s *statusSource, objects []object) error {
	if s.addr != "" {
		if _, _, err := s.get(ctx, "/healthz"); err == nil {
			return fmt.Errorf("a daemon runs, it answers at -status-addr %s: stop it first, or say -force", s.addr)
		}
	}
	for _, o := range objects {
		if o.Kind != kindDevice {
			continue
		}
		claim, err := netdev.Lock(o.Name)
		if err != nil {
			return fmt.Errorf("a daemon runs: %w; stop it first, or say -force", err)
		}
		if err := claim.Close(); err != nil {
			return err
		}
	}
	return nil
}

const kindDevice = "device"

// object is something in the kernel that flannel made.
type object struct {
	Kind string `json:"kind"` // device, route, nftables table, eBPF programs
	Name string `json:"name"`
}

func (o object) String() string { return o.Kind + " " + o.Name }

type cleanup struct {
	p       *Program
	network netip.Prefix
}

// list is what is there of the network, in the network namespace of the caller.
func (c cleanup) list() (found []object, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	links, err := rtnl.Links(h)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if name := l.Attrs().Name; ourDevices.MatchString(name) {
			within, err := rtnl.Within(h, l, c.network)
			if err != nil {
				return nil, err
			}
			if within {
				found = append(found, object{kindDevice, name})
			}
		}
	}
	routes, err := c.routes(h)
	if err != nil {
		return nil, err
	}
	found = append(found, routes...)
	tables, err := c.tables()
	if err != nil {
		return nil, err
	}
	found = append(found, tables...)
	pinned, err := c.p.Pinned()
	for _, device := range pinned {
		exists := slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == device })
		// Those of a device of another network are not ours to take.
		if !exists || slices.Contains(found, object{kindDevice, device}) {
			found = append(found, object{"eBPF programs", "of " + device})
		}
	}
	return found, err
}

// routes carry our protocol number and lead into the network.
func (c cleanup) routes(h *netlink.Handle) (found []object, err error) {
	filter := &netlink.Route{Protocol: rtnl.Protocol, Table: unix.RT_TABLE_UNSPEC}
	routes, err := rtnl.Routes(h, filter, netlink.RT_FILTER_PROTOCOL)
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP)
		if ok && c.network.Contains(addr.Unmap()) {
			found = append(found, object{"route", r.Dst.String()})
		}
	}
	return found, err
}

func (c cleanup) tables() (found []object, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil // a kernel without nftables has no tables
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == masq.TableName(c.network) {
			found = append(found, object{"nftables table", t.Name})
		}
	}
	return found, nil
}
