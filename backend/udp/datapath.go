package udp

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/coreos/flannel/pkg/uplink"
)

// dataPath is one way of moving packets between the device and the wire.
type dataPath interface {
	// deviceName is the tunnel device's name.
	deviceName() string
	// detail says what the path makes use of and what it lacks, for the status.
	detail() string
	// run moves packets until ctx ends (nil) or the device or socket breaks.
	run(ctx context.Context) error
	// close releases device and sockets; called once, after run.
	close() error
}

// Values of -udp-datapath, and but for auto, which leaves the choice to us, the
// names of the data paths in status, metrics and log. What the leases of hosts
// with the kernel's tell is its name, too.
const (
	auto        = "auto"
	kernelName  = "kernel"
	offloadName = "offload"
	plainName   = "plain"
)

// pathKind is a data path that may be chosen.
type pathKind struct {
	name string
	open func(context.Context, *plane) (dataPath, error)
}

// paths returns all data paths, the best first.
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

// CheckDataPath refuses what is no value of the -udp-datapath flag, and names
// those that are.
func CheckDataPath(flag string) error {
	_, err := choosePaths(flag)
	return err
}

// persistent is a device that outlives the process.
type persistent struct {
	name string
	on   bool
}

// plane is what a data path works with.
type plane struct {
	network, own netip.Prefix
	subnetLen    int
	uplink       uplink.Uplink
	// device asks for one that outlives the process; zero: a new one.
	device persistent
	// local is the address and port that we receive at and send from.
	local netip.AddrPort
	table *table
	drops *drops
	mtus  *pathMTUs
}
