package rig

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// outerHeader is the outer IP header that a route gives to its tunnel device
// (LWTUNNEL_ENCAP_IP and LWTUNNEL_ENCAP_IP6, linux/lwtunnel.h).
type outerHeader struct{ remote netip.Addr }

// The attributes of enum lwtunnel_ip_t. Those of IPv6 have the same numbers.
const (
	outerDestination = 2
	outerHopLimit    = 4
	outerFlags       = 6

	// dontFragment is TUNNEL_DONT_FRAGMENT (linux/if_tunnel.h).
	dontFragment = 0x100
)

// Type implements netlink.Encap.
func (o *outerHeader) Type() int {
	if o.remote.Is4() {
		return unix.LWTUNNEL_ENCAP_IP
	}
	return unix.LWTUNNEL_ENCAP_IP6
}

// Encode implements netlink.Encap.
func (o *outerHeader) Encode() ([]byte, error) {
	var b []byte
	for _, a := range []*nl.RtAttr{
		nl.NewRtAttr(outerDestination, o.remote.AsSlice()),
		nl.NewRtAttr(outerHopLimit, []byte{hopLimit}),
		nl.NewRtAttr(outerFlags, binary.BigEndian.AppendUint16(nil, dontFragment)),
	} {
		b = append(b, a.Serialize()...)
	}
	return b, nil
}

// Decode implements netlink.Encap. Nothing reads such routes back.
func (o *outerHeader) Decode([]byte) error { return errors.ErrUnsupported }

// String implements netlink.Encap.
func (o *outerHeader) String() string { return "to " + o.remote.String() }

// Equal implements netlink.Encap.
func (o *outerHeader) Equal(x netlink.Encap) bool {
	other, ok := x.(*outerHeader)
	return ok && *o == *other
}
