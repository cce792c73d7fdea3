package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/alloc"
	"github.com/coreos/flannel/backend/hostgw"
	"github.com/coreos/flannel/backend/udp"
	"github.com/coreos/flannel/backend/vxlan"
	"github.com/coreos/flannel/backend/wireguard"
	"github.com/coreos/flannel/pkg/envfile"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// backendKind is what main knows of a backend.
type backendKind struct {
	make func(backend.Config) (backend.Backend, error)
	// remove takes away what an earlier run of the backend for network has
	// left in the kernel; nil where nothing outlives the process.
	remove func(ctx context.Context, network netip.Prefix) error
	// port is the UDP port that other hosts send to, unless another is
	// configured; 0: they send to none.
	port int
}

// backends are the values of the configuration's Backend.Type.
var backends = map[string]backendKind{
	"alloc":        {make: alloc.New},
	hostgw.Type:    {make: hostgw.New, remove: hostgw.Remove},
	"udp":          {udp.New, udp.Remove, udp.DefaultPort},
	vxlan.Type:     {vxlan.New, vxlan.Remove, vxlan.DefaultPort},
	wireguard.Type: {wireguard.New, wireguard.Remove, wireguard.DefaultPort},
}

func (d *daemon) newBackend(config *subnet.Config, up uplink.Uplink, publicIP netip.Addr) (backend.Backend, error) {
	kind, known := backends[config.BackendType]
	if !known {
		return nil, fmt.Errorf("Backend.Type %q is not known; known are %s", config.BackendType,
			strings.Join(slices.Sorted(maps.Keys(backends)), ", "))
	}
	return kind.make(backend.Config{
		Network: config.Network, SubnetLen: config.SubnetLen, Options: config.Backend,
		Uplink: up, PublicIP: publicIP, Port: d.options.port, DataPath: d.options.dataPath,
		StateDir: d.options.stateDir, RunDir: filepath.Dir(d.options.subnetFile),
		Reconciled: d.reconciles.Kernel,
	})
}

// removeOthers takes away what earlier runs have left that the backend now at
// work does not take over: all of other backends, and of a Network that was
// ours before, its firewall rules included.
func (d *daemon) removeOthers(ctx context.Context, j joined) error {
	config := j.config
	var errs []error
	for name, kind := range backends {
		if kind.remove == nil {
			continue
		}
		if name != config.BackendType {
			errs = append(errs, kind.remove(ctx, config.Network))
		}
		for _, before := range j.networks {
			errs = append(errs, kind.remove(ctx, before))
		}
	}
	for _, before := range j.networks {
		if err := masq.Remove(before); err != nil {
			log.V(1).Infof("look for old firewall rules: %v", err) // no nftables, no rules
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what other backends have left: %w", err)
	}
	return nil
}

// removeAll takes away what backends have left for network, of a flannel that
// does not run.
func removeAll(ctx context.Context, network netip.Prefix) error {
	var errs []error
	for _, kind := range backends {
		if kind.remove != nil {
			errs = append(errs, kind.remove(ctx, network))
		}
	}
	return errors.Join(errs...)
}

// defaultPorts are the ports of the backends that have one.
func defaultPorts() map[string]int {
	ports := make(map[string]int)
	for name, kind := range backends {
		if kind.port != 0 {
			ports[name] = kind.port
		}
	}
	return ports
}

// previous is what the last run wrote to subnet.env; zero if there is none. A
// damaged file costs no more than the preference for the old subnet.
func (d *daemon) previous() envfile.Env {
	env, err := envfile.Read(d.options.subnetFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warningf("ignore previous subnet: %v", err)
	}
	return env
}
