package vxlan

import (
	"cmp"
	"fmt"
	"math"

	"github.com/coreos/flannel/backend"
)

const (
	// DefaultPort is the kernel's default, older than IANA's 4789. All generations
	// of flannel use it.
	DefaultPort = 8472
	// maxVNI is the largest VXLAN network identifier: 24 bits (RFC 7348).
	maxVNI = 1<<24 - 1
	// encapsulation is what VXLAN adds to a packet, in bytes: IPv4 20, UDP 8,
	// VXLAN 8, inner Ethernet 14 (RFC 7348 section 5).
	encapsulation = 50
)

// options is the configuration's Backend object.
type options struct {
	// VNI distinguishes networks that share a port.
	VNI uint32
	// Port is the UDP port of all hosts.
	Port int
	// MTU is that of the network between the hosts, in bytes; 0: the uplink's.
	MTU int
	// GBP adds the group policy extension to packets.
	GBP bool
	// Learning lets the kernel learn forwarding entries from packets.
	Learning bool
	// DirectRouting routes to hosts on the uplink's own link without VXLAN.
	DirectRouting bool
}

func parseOptions(c backend.Config) (options, error) {
	o := options{VNI: 1}
	if err := c.Decode(&o); err != nil {
		return o, err
	}
	o.Port, o.MTU = cmp.Or(c.Port, o.Port, DefaultPort), cmp.Or(o.MTU, c.Uplink.MTU)
	switch {
	case o.VNI > maxVNI:
		return o, fmt.Errorf("Backend.VNI %d is not in 0 to %d", o.VNI, maxVNI)
	case o.Port < 0 || o.Port > math.MaxUint16:
		return o, fmt.Errorf("Backend.Port %d is not a port, 1 to %d", o.Port, math.MaxUint16)
	case o.MTU-encapsulation < backend.MinMTU || o.MTU > math.MaxUint16:
		return o, fmt.Errorf("MTU %d of the network between the hosts is not in %d to %d: VXLAN takes %d bytes, IPv4 needs %d", o.MTU, backend.MinMTU+encapsulation, math.MaxUint16, encapsulation, backend.MinMTU)
	case o.DirectRouting && c.Uplink.VRF != "":
		return o, fmt.Errorf("Backend.DirectRouting: interface %s belongs to VRF %s, by whose table the kernel would route packets to containers; leave DirectRouting out", c.Uplink.Name, c.Uplink.VRF)
	}
	return o, nil
}
