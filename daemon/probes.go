package daemon

import (
	"context"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/probe"
)

// probe measures the way to each peer until ctx ends. The network does not
// depend on it: without it, less is known.
func (d *daemon) probe(ctx context.Context, j joined, network backend.Network, rec *recorder) error {
	if d.options.probeInterval > 0 && j.config.BackendType != "alloc" { // which carries nothing
		p := probe.New(probe.Config{
			Subnet: j.lease.Subnet, MTU: network.MTU(), Interval: d.options.probeInterval,
			Peers: rec.subnets,
		})
		d.update(func(r *running) { r.prober = p })
		if err := p.Run(ctx); err != nil {
			log.Warningf("peers are not probed: %v", err)
			d.update(func(r *running) { r.prober = nil })
		}
	}
	<-ctx.Done()
	return nil
}
