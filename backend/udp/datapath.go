package udp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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

// pathConfig is what a data path is opened with.
type pathConfig struct {
	tableConfig
	links *netlink.Handle
	// device is the device to open or make, which then outlives the process; empty:
	// a new one.
	device string
	// locals are the addresses and the port that we receive at and send from, by
	// family; not valid for a family that has no datagrams of ours.
	locals [2]netip.AddrPort
	table  *table
	drops  *drops
	mtus   *pathMTUs
	// named is true if -udp-datapath names the data path.
	named bool
	// announce makes the lease name a data path, and the pairs of families that it
	// takes; "" names none.
	announce func(dataPath, pairs string)
}

// mtuTo returns the largest packet that the path to a peer takes, in bytes.
func (p *pathConfig) mtuTo(to *peer) int {
	return p.mtus.to(to.addr, p.Of(to.outer).Uplink.MTU) - overhead(to.outer)
}

// deviceMTU is the device's: the largest packet that datagrams of some family hold. A
// container that was started before IPv6 was turned on still has that MTU for IPv4. For
// the other family an ICMP error reports the lesser one.
func (p *pathConfig) deviceMTU() int {
	mtu := 0
	for _, f := range p.outer {
		mtu = max(mtu, p.Of(f).Uplink.MTU-overhead(f))
	}
	return mtu
}

// socketBuffer is the size of a socket's buffers in bytes, for each direction: at
// 10 Gb/s 3 ms of packets, about a goroutine's wait for a processor on a busy host.
const socketBuffer = 4 << 20

// explainListen adds the remedy to the usual error of listen.
func explainListen(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w; another flannel daemon or VPN has the port: stop it, or choose another with -port (the same on every host)", err)
	}
	return err
}
