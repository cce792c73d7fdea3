package status

import (
	"fmt"
	"time"
)

// These are the values of OffloadFault.Direction.
const (
	ToPeer   = "to_peer"
	FromPeer = "from_peer"
)

// OffloadFault is a fault of an offload on the path to or from a peer.
type OffloadFault struct {
	// Direction is ToPeer or FromPeer.
	Direction string `json:"direction"`
	// Layer is the part of the path that has the fault: checksum, segmentation,
	// tcp-segmentation, udp-segmentation, receive-merging, path-mtu, ecn.
	Layer string    `json:"layer"`
	Since time.Time `json:"since"`
	// Effect says which packets are lost.
	Effect string `json:"effect"`
	// Fix is the command that ends the fault, or what to do.
	Fix string `json:"fix,omitempty"`
}

// OffloadSwitch is a feature of a device that flannel has turned off.
type OffloadSwitch struct {
	Device  string `json:"device"`
	Feature string `json:"feature"`
	// Layer is that of the fault. Since is when the switch was turned.
	Layer string    `json:"layer"`
	Since time.Time `json:"since"`
}

// offloadWarnings returns a line for each layer and direction, with the first peers.
func (b *Backend) offloadWarnings() []string {
	type kind struct{ direction, layer string }
	faults := make(map[kind]OffloadFault)
	with := make(map[kind][]string)
	var order []kind
	for _, p := range b.Peers {
		for _, f := range p.OffloadFaults {
			k := kind{f.Direction, f.Layer}
			if with[k] == nil {
				order = append(order, k)
				faults[k] = f
			}
			with[k] = append(with[k], p.Subnet.String())
		}
	}
	var lines []string
	for _, k := range order {
		preposition := "to"
		if k.direction == FromPeer {
			preposition = "from"
		}
		lines = append(lines, fmt.Sprintf("warning: offload fault (%s) of packets %s %d of %d peers: %s; fix: %s; peers: %s",
			k.layer, preposition, len(with[k]), len(b.Peers), faults[k].Effect, faults[k].Fix, join(with[k])))
	}
	return lines
}

// sendOffloads sends the metrics of offload faults.
func (b *Backend) sendOffloads(send func(m metric, value float64, labels ...string)) {
	if s := b.OffloadSwitch; s != nil {
		send(offloadOff, 1, s.Device, s.Feature, s.Layer)
	}
	for _, p := range b.Peers {
		for _, f := range p.OffloadFaults {
			send(peerOffload, 1, p.Subnet.String(), f.Direction, f.Layer)
		}
	}
}
