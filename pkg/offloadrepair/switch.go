package offloadrepair

import (
	"fmt"
	"slices"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/offloadprobe"
)

// Features are the offload features of devices (netdev.Features).
type Features interface {
	// Switchable returns the features of a device that can be changed; true is on.
	Switchable(device string) (map[string]bool, error)
	// Switch turns a feature on or off.
	Switch(device, feature string, on bool) error
}

// Devices are those on the path to the peers.
type Devices struct {
	// Tunnel is the kernel's tunnel device; empty if there is none, or if the path passes
	// its features by.
	Tunnel string
	// Encapsulated packets leave by the uplink.
	Encapsulated bool
	// Uplink is the interface to the other hosts.
	Uplink string
	// Family is that of the containers' packets.
	Family inet.Family
}

// Switch is a feature of a device.
type Switch struct {
	Device  string `json:"device"`
	Feature string `json:"feature"`
}

// Off returns the command that turns the switch off.
func (s Switch) Off() string { return fmt.Sprintf("ethtool -K %s %s off", s.Device, s.Feature) }

// On returns the command that turns the switch on.
func (s Switch) On() string { return fmt.Sprintf("ethtool -K %s %s on", s.Device, s.Feature) }

// feature is a feature of one of the two devices. encapsulated: it applies to packets
// that a tunnel has encapsulated. name6 is its name for IPv6 where the families have
// features of their own.
type feature struct {
	name, name6          string
	tunnel, encapsulated bool
}

func (f feature) of(family inet.Family) string {
	if family == inet.IPv6 && f.name6 != "" {
		return f.name6
	}
	return f.name
}

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
		{name: "tx-udp_tnl-segmentation", encapsulated: true},
		{name: "tx-udp_tnl-csum-segmentation", encapsulated: true},
		{name: "tx-checksum-ip-generic", tunnel: true},
		{name: "tx-checksum-ip-generic"},
		{name: "tx-checksum-ipv4", name6: "tx-checksum-ipv6"},
	},
	offloadprobe.TCPSegmentation: {
		{name: "tx-udp_tnl-segmentation", encapsulated: true},
		{name: "tx-udp_tnl-csum-segmentation", encapsulated: true},
		{name: "tx-tcp-segmentation", name6: "tx-tcp6-segmentation"},
		{name: "tx-tcp-segmentation", name6: "tx-tcp6-segmentation", tunnel: true},
	},
	offloadprobe.UDPSegmentation: {
		{name: "tx-udp_tnl-segmentation", encapsulated: true},
		{name: "tx-udp_tnl-csum-segmentation", encapsulated: true},
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
		s := Switch{device, candidate.of(d.Family)}
		if on[device][s.Feature] && (d.Encapsulated || !candidate.encapsulated) && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all, nil
}
