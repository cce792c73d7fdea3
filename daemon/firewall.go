package daemon

import (
	"context"
	"net/netip"
	"slices"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/masq"
)

// firewall keeps the rules of -ip-masq.
type firewall struct {
	rules   masq.Rules
	enabled bool

	// The functions that reach the kernel.
	set    func(masq.Rules) error
	keep   func(context.Context, masq.Rules) error
	remove func(network netip.Prefix) error
	// leftovers lists what stays in the kernel.
	leftovers func(network netip.Prefix) ([]all.Leftover, error)
}

func newFirewall(network, subnet netip.Prefix, enabled bool) *firewall {
	return &firewall{rules: masq.Rules{Network: network, Subnet: subnet}, enabled: enabled,
		set: masq.Apply, keep: masq.Run, remove: masq.Remove, leftovers: all.Leftovers}
}

func (f *firewall) apply() error {
	if !f.enabled {
		return nil
	}
	return f.set(f.rules)
}

// Run keeps the rules until ctx ends. If they are not enabled, it removes those of
// an earlier run.
func (f *firewall) Run(ctx context.Context) error {
	if f.enabled {
		return f.keep(ctx, f.rules)
	}
	if err := f.remove(f.rules.Network); err != nil {
		log.V(1).Infof("look for old firewall rules: %v", err) // no nftables, no rules
	}
	<-ctx.Done()
	return nil
}

// finish removes the rules, unless a device or routes of the network stay: then
// the kernel goes on with packets, and containers' packets to other networks must
// not leave with addresses of the overlay. The next start takes the rules over, or
// removes them; flannel cleanup removes them, too.
func (f *firewall) finish() error {
	if !f.enabled {
		return nil
	}
	left, err := f.leftovers(f.rules.Network)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(left, all.Leftover.Carries) {
		log.Infof("leave firewall rules network=%v reason=%q", f.rules.Network, "the kernel goes on with packets")
		return nil
	}
	return f.remove(f.rules.Network)
}
