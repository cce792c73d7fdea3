package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// newBackend returns the backend that config names, for the uplinks and families of
// p. reconciled is backend.Config's.
func newBackend(o *Options, config *subnet.Config, p progress, reconciled func(time.Duration)) (backend.Backend, error) {
	c := backend.Config{
		Options: config.Backend, Previous: p.store.Previous(), Port: o.port, DataPath: o.dataPath, FastPath: o.fastPath, FastPathMark: o.fastPathMark,
		StateDir: o.stateDir, RunDir: filepath.Dir(o.subnetFile),
		Reconciled: reconciled,
	}
	for _, f := range inet.Families {
		c.Set(f, backend.Side{Uplink: p.sides[f].uplink, PublicIP: p.sides[f].publicIP})
	}
	for _, f := range p.inside(config) {
		s := c.Of(f)
		s.Network, s.SubnetLen = config.RangeOf(f).Network, config.RangeOf(f).SubnetLen
		c.Set(f, s)
	}
	return all.New(config.BackendType, c)
}

// removeLeftovers removes the kernel state of earlier runs that config's backend does
// not take over: that of other backends, and all of former networks.
func removeLeftovers(ctx context.Context, config *subnet.Config, former []netip.Prefix) error {
	var errs []error
	for _, f := range config.Families() {
		errs = append(errs, all.RemoveAll(ctx, config.RangeOf(f).Network, config.BackendType))
	}
	errs = append(errs, removeNetworks(ctx, former))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove kernel state of other backends: %w", err)
	}
	return nil
}

// removeNetworks removes all kernel state of former networks.
func removeNetworks(ctx context.Context, former []netip.Prefix) error {
	var errs []error
	for _, network := range former {
		errs = append(errs, all.RemoveAll(ctx, network), rtnl.RemoveBlackholes(network))
		if err := masq.Remove(network); err != nil {
			log.V(1).Infof("look for old firewall rules: %v", err) // no nftables, no rules
		}
	}
	return errors.Join(errs...)
}
