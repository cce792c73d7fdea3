package udp

import (
	"context"
	"fmt"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/subnet"
)

// dataPath is one way of moving packets between the device and the wire.
type dataPath interface {
	// deviceName is the tunnel device's name.
	deviceName() string
	// run moves packets until ctx ends (nil) or the device or socket breaks.
	run(ctx context.Context) error
	// close releases device and sockets; called once, after run.
	close() error
}

// pathChoice is a data path and why it is the one.
type pathChoice struct {
	name, reason string
	open         func(context.Context, *plane) (dataPath, error)
}

// choosePath maps the -udp-datapath flag to a data path.
func choosePath(flag string) (pathChoice, error) {
	switch flag {
	case "", "auto":
		return pathChoice{"plain", "auto: works on any kernel", openPlain}, nil
	case "plain":
		return pathChoice{"plain", "named by -udp-datapath", openPlain}, nil
	}
	return pathChoice{}, fmt.Errorf("-udp-datapath %q is not known; known are auto, plain", flag)
}

// network is the udp backend at work for one lease.
type network struct {
	*plane
	path         dataPath
	name, reason string
}

func (n *network) MTU() int { return n.uplink.MTU - encapsulation }

func (n *network) Apply(events []subnet.Event) { n.table.apply(events, n.local.Port()) }

func (n *network) Run(ctx context.Context) error {
	log.Infof("carry packets device=%s datapath=%s reason=%q local=%v mtu=%d", n.path.deviceName(), n.name, n.reason, n.local, n.MTU())
	return n.path.run(ctx)
}

func (n *network) Close() error {
	if err := n.path.close(); err != nil {
		return fmt.Errorf("close %s: %w", n.path.deviceName(), err)
	}
	return nil
}

func (n *network) Stats() backend.Stats {
	return backend.Stats{DataPath: n.name, Reason: n.reason, Peers: n.table.stats(), Drops: n.drops.snapshot()}
}
