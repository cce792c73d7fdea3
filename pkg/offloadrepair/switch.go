package offloadrepair

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/offloadprobe"
)

// Features are the offload features of devices (netdev.Features).
type Features interface {
	// Switchable returns the features of a device that can be changed; true is on. The
	// error is ENODEV if there is no such device.
	Switchable(device string) (map[string]bool, error)
	// Switch turns a feature on or off.
	Switch(device, feature string, on bool) error
}

// Devices are those on the path to the peers.
type Devices struct {
	// Tunnel is the kernel's tunnel device; empty if there is none, or if the path passes
	// its features by.
	Tunnel string
	// Encapsulated is how packets are on the uplink. Checksummed datagrams of the kernel
	// have a checksum of their own.
	Encapsulated Encapsulation
	Checksummed  bool
	// Uplink is the interface to the other hosts.
	Uplink string
	// Family is that of the containers' packets.
	Family inet.Family
}

// Encapsulation is how a path carries the containers' packets.
type Encapsulation int

const (
	// Bare packets have no other header.
	Bare Encapsulation = iota
	// ByKernel: the kernel encapsulates packets. The uplink segments those inside.
	ByKernel
	// ByProcess: this process sends packets in datagrams of its own, several in one
	// super-packet.
	ByProcess
)

// Switch is a feature of a device.
type Switch struct {
	Device  string `json:"device"`
	Feature string `json:"feature"`
}

// Off returns the command that turns the switch off.
func (s Switch) Off() string { return fmt.Sprintf("ethtool -K %s %s off", s.Device, s.Feature) }

// On returns the command that turns the switch on.
func (s Switch) On() string { return fmt.Sprintf("ethtool -K %s %s on", s.Device, s.Feature) }

// position is that of a switch.
type position int

const (
	gone position = iota // the device has no such switch
	off
	on
)

func positionOf(f Features, s Switch) (position, error) {
	states, err := f.Switchable(s.Device)
	if errors.Is(err, unix.ENODEV) {
		return gone, nil
	}
	if err != nil {
		return gone, err
	}
	switch active, has := states[s.Feature]; {
	case !has:
		return gone, nil
	case active:
		return on, nil
	}
	return off, nil
}

// feature is a feature of the tunnel device or of the uplink.
type feature struct {
	// name is that of "ethtool -k". name6 is that for IPv6 packets, and nameSum that for
	// checksummed datagrams; empty: the same.
	name, name6, nameSum string
	// tunnel: it is a feature of the tunnel device, not of the uplink.
	tunnel bool
	// only is the encapsulation that it applies to; Bare: all of them.
	only Encapsulation
}

func (f feature) of(d Devices) string {
	switch {
	case d.Family == inet.IPv6 && f.name6 != "":
		return f.name6
	case d.Checksummed && f.nameSum != "":
		return f.nameSum
	}
	return f.name
}

// tunnelSegmentation segments super-packets in the datagrams of a path. otherSegmentation
// segments those in datagrams of the other kind: with a checksum, or without.
var (
	tunnelSegmentation = feature{name: "tx-udp_tnl-segmentation", nameSum: "tx-udp_tnl-csum-segmentation", only: ByKernel}
	otherSegmentation  = feature{name: "tx-udp_tnl-csum-segmentation", nameSum: "tx-udp_tnl-segmentation", only: ByKernel}
)

// features has those that may end a fault, in the order to try. The first ones cost
// other traffic of the host least. A device without checksum offload gets no
// super-packets either (harmonize_features, net/core/dev.c).
var features = map[offloadprobe.Layer][]feature{
	offloadprobe.Checksum: {
		{name: "tx-checksum-ip-generic", tunnel: true},
		{name: "tx-checksum-ip-generic"},
		{name: "tx-checksum-ipv4", name6: "tx-checksum-ipv6"},
	},
	offloadprobe.Segmentation: {
		tunnelSegmentation, otherSegmentation,
		{name: "tx-udp-segmentation", only: ByProcess},
		{name: "tx-checksum-ip-generic", tunnel: true},
		{name: "tx-checksum-ip-generic"},
		{name: "tx-checksum-ipv4", name6: "tx-checksum-ipv6"},
	},
	offloadprobe.TCPSegmentation: {
		tunnelSegmentation, otherSegmentation,
		{name: "tx-udp-segmentation", only: ByProcess}, // the datagrams around them
		{name: "tx-tcp-segmentation", name6: "tx-tcp6-segmentation"},
		{name: "tx-tcp-segmentation", name6: "tx-tcp6-segmentation", tunnel: true},
	},
	offloadprobe.UDPSegmentation: {
		tunnelSegmentation, otherSegmentation,
		{name: "tx-udp-segmentation"},
		{name: "tx-udp-segmentation", tunnel: true},
	},
	offloadprobe.ReceiveMerging: {
		{name: "rx-gro-hw"},
		{name: "rx-lro"},
		{name: "rx-gro", tunnel: true},
		{name: "rx-gro"},
	},
}

// AtReceiver reports whether the switches of a layer are those of the receiver.
func AtReceiver(l offloadprobe.Layer) bool { return l == offloadprobe.ReceiveMerging }

// Candidates returns the switches that may end a fault, in the order to try. A
// feature that is off or cannot be changed is none.
func Candidates(f Features, l offloadprobe.Layer, d Devices) ([]Switch, error) {
	if len(features[l]) == 0 {
		return nil, nil
	}
	on := make(map[string]map[string]bool)
	for _, device := range []string{d.Tunnel, d.Uplink} {
		if device == "" {
			continue
		}
		state, err := f.Switchable(device)
		if err != nil {
			return nil, err
		}
		on[device] = state
	}
	var all []Switch
	for _, candidate := range features[l] {
		device := d.Uplink
		if candidate.tunnel {
			device = d.Tunnel
		}
		s := Switch{device, candidate.of(d)}
		if on[device][s.Feature] && (candidate.only == Bare || candidate.only == d.Encapsulated) && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all, nil
}
