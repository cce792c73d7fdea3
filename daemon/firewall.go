package daemon

import (
	"context"
	"errors"
	"net/netip"

	log "github.com/golang/glog"

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
}

func newFirewall(network, subnet netip.Prefix, enabled bool) *firewall {
	return &firewall{rules: masq.Rules{Network: network, Subnet: subnet, Masquerade: true}, enabled: enabled,
		set: masq.Apply, keep: masq.Run, remove: masq.Remove}
}

func (f *firewall) apply() error {
	if !f.enabled {
		return nil
	}
	return f.set(f.rules)
}

// Run keeps the rules until ctx ends, then removes them. If they are not enabled,
// it removes those of a run that was killed.
func (f *firewall) Run(ctx context.Context) error {
	if f.enabled {
		return errors.Join(f.keep(ctx, f.rules), f.remove(f.rules.Network))
	}
	if err := f.remove(f.rules.Network); err != nil {
		log.V(1).Infof("look for old firewall rules: %v", err) // no nftables, no rules
	}
	<-ctx.Done()
	return nil
}
