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
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// newBackend returns the backend that config names, for one uplink. reconciled is
// backend.Config's.
func newBackend(o *Options, config *subnet.Config, up uplink.Uplink, publicIP netip.Addr, reconciled func(time.Duration)) (backend.Backend, error) {
	return all.New(config.BackendType, backend.Config{
		Network: config.Network, SubnetLen: config.SubnetLen, Options: config.Backend,
		Uplink: up, PublicIP: publicIP, Port: o.port, DataPath: o.dataPath, FastPath: o.fastPath, FastPathMark: o.fastPathMark,
		StateDir: o.stateDir, RunDir: filepath.Dir(o.subnetFile),
		Reconciled: reconciled,
	})
}

// removeLeftovers removes the kernel state of earlier runs that config's backend does
// not take over: that of other backends, and all of former networks.
func removeLeftovers(ctx context.Context, config *subnet.Config, former []netip.Prefix) error {
	errs := []error{all.RemoveAll(ctx, config.Network, config.BackendType)}
	for _, network := range former {
		errs = append(errs, all.RemoveAll(ctx, network))
		if err := masq.Remove(network); err != nil {
			log.V(1).Infof("look for old firewall rules: %v", err) // no nftables, no rules
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove kernel state of other backends: %w", err)
	}
	return nil
}
