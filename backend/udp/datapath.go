package udp

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// dataPath is one way of moving packets between the device and the wire.
type dataPath interface {
	// name is the value of -udp-datapath for what carries packets now. It may
	// change while the path runs.
	name() string
	// deviceName is the tunnel device's name.
	deviceName() string
	// detail lists for the status what the path uses and what the kernel lacks.
	detail() string
	// run moves packets until ctx ends (nil) or the device or socket breaks.
	run(ctx context.Context) error
	// close releases device and sockets. It is called once, after run.
	close() error
}

// A dataPath may implement these interfaces, too.
type (
	// applier has peers of its own beside the table. One goroutine calls apply,
	// and the first call has all peers.
	applier interface{ apply([]subnet.Event) }
	// checker compares its own state in the kernel with what it should be, and
	// changes nothing.
	checker interface{ check() error }
	// reporter adds its own counts to the table's.
	reporter interface{ addTo(*backend.Stats) }
)

func (*plain) name() string     { return plainName }
func (*offloaded) name() string { return offloadName }

// These are the values of -udp-datapath, and but for auto the names of the data
// paths in status, metrics and log. A lease with DataPath has kernelName there.
const (
	auto        = "auto"
	kernelName  = "kernel"
	offloadName = "offload"
	plainName   = "plain"
)

// pathKind is a data path that may be chosen.
type pathKind struct {
	name string
	open func(context.Context, *pathConfig) (dataPath, error)
}

// paths returns all data paths in order of preference.
func paths() []pathKind {
	return []pathKind{
		{kernelName, openKernel},
		{offloadName, openOffloaded},
		{plainName, openPlain},
	}
}

// choosePaths maps the -udp-datapath flag to the data paths to try in turn.
func choosePaths(flag string) ([]pathKind, error) {
	if flag == "" || flag == auto {
		return paths(), nil
	}
	known := []string{auto}
	for _, k := range paths() {
		if k.name == flag {
			return []pathKind{k}, nil
		}
		known = append(known, k.name)
	}
	return nil, fmt.Errorf("-udp-datapath %q is not known; known are %s", flag, strings.Join(known, ", "))
}

// CheckDataPath returns an error that names the values of the -udp-datapath flag
// if flag is none of them.
func CheckDataPath(flag string) error {
	_, err := choosePaths(flag)
	return err
}

// persistent names a device that outlives the process.
type persistent struct {
	name string
	on   bool
}

// pathConfig is what a data path is opened with.
type pathConfig struct {
	network, own netip.Prefix
	subnetLen    int
	uplink       uplink.Uplink
	// device, if on, is the device to open or make; zero: a new one.
	device persistent
	// local is the address and port that we receive at and send from.
	local netip.AddrPort
	table *table
	drops *drops
	mtus  *pathMTUs
	// announce makes the lease name a data path; "" names none.
	announce func(dataPath string)
	// reconciled, if not nil, receives the duration of each comparison with the
	// kernel's state.
	reconciled func(time.Duration)
}
