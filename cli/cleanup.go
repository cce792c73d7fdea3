package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/offloadrepair"
	"github.com/coreos/flannel/pkg/subnetfile"
)

var cleanupCommand = command{
	name: "cleanup", summary: "remove the kernel state that an earlier run of flannel left",
	detail: "It removes the devices, routes, nftables table and eBPF programs of one network, and turns on the offload that\n" +
		"-offload-repair has turned off, and nothing else. subnet.env and -state-dir stay, so that the next start gets the same\n" +
		"subnet. It refuses to run while a daemon runs.",
	json: "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		s := newStatusClient(fs)
		file := subnetFileFlag(fs)
		stateDir := fs.String("state-dir", "/var/lib/flannel", "the daemon's `folder`")
		given := fs.String("network", "", "`CIDR` of the network, instead of the one in -subnet-file")
		dryRun := fs.Bool("dry-run", false, "print what would be removed, and remove nothing")
		force := fs.Bool("force", false, "run although a daemon runs; its devices stay")
		return func(ctx context.Context, _ []string) error {
			networks, err := cleanupNetworks(*given, *file)
			if err != nil {
				return err
			}
			left, err := leftovers(networks)
			if err != nil {
				return err
			}
			running := refuseRunning(ctx, s, left)
			if running != nil && !*dryRun && !*force {
				return running
			}
			var repair []all.Leftover
			var unrepaired error // it keeps nothing else from being removed
			if running == nil {  // before the device of the switch is removed
				repair, unrepaired = endRepair(*stateDir, *dryRun)
			}
			if !*dryRun {
				if left, err = removeLeftovers(ctx, networks, left, *force); err != nil {
					return errors.Join(err, unrepaired)
				}
			}
			return errors.Join(printLeftovers(p, append(repair, left...), *dryRun), unrepaired)
		}
	},
}

// cleanupNetworks returns -network, or the networks of both families in the subnet
// file.
func cleanupNetworks(given, file string) (networks []netip.Prefix, err error) {
	if given != "" {
		n, err := netip.ParsePrefix(given)
		if err != nil {
			return nil, fmt.Errorf("-network: %w", err)
		}
		return []netip.Prefix{n.Masked()}, nil
	}
	env, err := subnetfile.Read(file)
	if err != nil {
		return nil, fmt.Errorf("find the network: %w; use -network", err)
	}
	for _, n := range []netip.Prefix{env.Network, env.IPv6Network} {
		if n.IsValid() {
			networks = append(networks, n)
		}
	}
	if networks == nil {
		return nil, fmt.Errorf("%s has no network; use -network", file)
	}
	return networks, nil
}

// leftovers lists the kernel state of networks. What several have is listed once.
func leftovers(networks []netip.Prefix) (left []all.Leftover, err error) {
	for _, n := range networks {
		of, err := all.Leftovers(n)
		if err != nil {
			return nil, err
		}
		for _, l := range of {
			if !slices.Contains(left, l) {
				left = append(left, l)
			}
		}
	}
	return left, nil
}

// refuseRunning returns an error if a daemon answers or has locked a device.
func refuseRunning(ctx context.Context, s *statusClient, left []all.Leftover) error {
	if s.addr != "" {
		if _, _, err := s.get(ctx, "/healthz"); err == nil {
			return fmt.Errorf("a daemon runs and answers at -status-addr %s: stop it, or use -force", s.addr)
		}
	}
	if err := all.CheckUnlocked(left); err != nil {
		return fmt.Errorf("a daemon runs: %w; stop it, or use -force", err)
	}
	return nil
}

// removeLeftovers returns those of left that it has removed. Without force it is
// an error if one stays.
func removeLeftovers(ctx context.Context, networks []netip.Prefix, left []all.Leftover, force bool) ([]all.Leftover, error) {
	for _, n := range networks {
		if err := all.RemoveLeftovers(ctx, n); err != nil {
			return nil, err
		}
	}
	stay, err := leftovers(networks)
	if err != nil {
		return nil, err
	}
	if len(stay) > 0 && !force {
		return nil, fmt.Errorf("%s was not removed", stay[0])
	}
	return slices.DeleteFunc(left, func(l all.Leftover) bool { return slices.Contains(stay, l) }), nil
}

// endRepair turns on the switch that -offload-repair has turned off. It returns it as a
// leftover, named by the command that turns it off.
func endRepair(stateDir string, dryRun bool) ([]all.Leftover, error) {
	features, err := netdev.OpenFeatures()
	if err != nil {
		return nil, err
	}
	defer features.Close()
	end := offloadrepair.Restore
	if dryRun {
		end = offloadrepair.Left
	}
	n, err := end(features, stateDir)
	if n == nil || err != nil {
		return nil, err
	}
	return []all.Leftover{{Kind: "offload repair", Name: n.Off()}}, nil
}

func printLeftovers(p *Program, left []all.Leftover, dryRun bool) error {
	if p.json {
		return printJSON(p.Stdout, append([]all.Leftover{}, left...))
	}
	verb := "removed"
	if dryRun {
		verb = "would remove"
	}
	for _, l := range left {
		fmt.Fprintf(p.Stdout, "%s %s\n", verb, l)
	}
	if len(left) == 0 {
		fmt.Fprintln(p.Stdout, "nothing to remove")
	}
	return nil
}
