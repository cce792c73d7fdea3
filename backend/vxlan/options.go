package vxlan

import (
	"cmp"
	"fmt"
	"math"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
)

const (
	// DefaultPort is the kernel's default, older than IANA's 4789. All generations
	// of flannel use it.
	DefaultPort = 8472
	// maxVNI is the largest VXLAN network identifier: 24 bits (RFC 7348).
	maxVNI = 1<<24 - 1
	// encapsulation is what VXLAN adds to a packet behind the outer IP header, in
	// bytes: UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348 section 5).
	encapsulation = 30
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

// mtu returns the MTU of the device that carries a family in datagrams of that family.
func (o options) mtu(f inet.Family, s backend.Side) int {
	return cmp.Or(o.MTU, s.Uplink.MTU) - f.HeaderLen() - encapsulation
}

func parseOptions(c backend.Config) (options, error) {
	o := options{VNI: 1}
	if err := c.Decode(&o); err != nil {
		return o, err
	}
	o.Port = cmp.Or(c.Port, o.Port, DefaultPort)
	switch {
	case o.VNI > maxVNI:
		return o, fmt.Errorf("Backend.VNI %d is not in 0 to %d", o.VNI, maxVNI)
	case o.Port < 0 || o.Port > math.MaxUint16:
		return o, fmt.Errorf("Backend.Port %d is not a port, 1 to %d", o.Port, math.MaxUint16)
	}
	for _, f := range c.Inside() {
		if err := o.checkUplink(f, c.Of(f)); err != nil {
			return o, err
		}
	}
	return o, nil
}

// checkUplink checks what depends on the interface to the other hosts. Before a
// configuration is published, the interface of one family may be unknown: its MTU is 0.
func (o options) checkUplink(f inet.Family, s backend.Side) error {
	mtu, overhead := cmp.Or(o.MTU, s.Uplink.MTU), f.HeaderLen()+encapsulation
	switch {
	case mtu != 0 && mtu-overhead < f.MinMTU() || mtu > math.MaxUint16:
		return fmt.Errorf("MTU %d of the network between the hosts is not in %d to %d: VXLAN takes %d bytes, %v needs %d", mtu, f.MinMTU()+overhead, math.MaxUint16, overhead, f, f.MinMTU())
	case o.DirectRouting && s.Uplink.VRF != "":
		return fmt.Errorf("Backend.DirectRouting: interface %s belongs to VRF %s, by whose table the kernel would route packets to containers; leave DirectRouting out", s.Uplink.Name, s.Uplink.VRF)
	}
	return nil
}
