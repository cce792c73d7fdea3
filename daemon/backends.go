package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

func (d *daemon) newBackend(config *subnet.Config, up uplink.Uplink, publicIP netip.Addr) (backend.Backend, error) {
	return all.New(config.BackendType, backend.Config{
		Network: config.Network, SubnetLen: config.SubnetLen, Options: config.Backend,
		Uplink: up, PublicIP: publicIP, Port: d.options.port, DataPath: d.options.dataPath,
		StateDir: d.options.stateDir, RunDir: filepath.Dir(d.options.subnetFile),
		Reconciled: d.reconciles.Kernel,
	})
}

// removeOthers removes what earlier runs left that the present backend does not
// take over: all of other backends, and all of an earlier Network.
func (d *daemon) removeOthers(ctx context.Context, j joined) error {
	errs := []error{all.RemoveAll(ctx, j.config.Network, j.config.BackendType)}
	for _, before := range j.networks {
		errs = append(errs, all.RemoveAll(ctx, before))
		if err := masq.Remove(before); err != nil {
			log.V(1).Infof("look for old firewall rules: %v", err) // no nftables, no rules
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what other backends have left: %w", err)
	}
	return nil
}

// previous is what the last run wrote to subnet.env; zero if there is none. A
// damaged file costs no more than the preference for the old subnet.
func (d *daemon) previous() subnetfile.Env {
	env, err := subnetfile.Read(d.options.subnetFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warningf("ignore previous subnet: %v", err)
	}
	return env
}
