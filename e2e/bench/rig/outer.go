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

// dontFragment is TUNNEL_DONT_FRAGMENT (linux/if_tunnel.h).
const dontFragment = 0x100

// Type implements netlink.Encap.
func (o *outerHeader) Type() int {
	if o.remote.Is4() {
		return unix.LWTUNNEL_ENCAP_IP
	}
	return unix.LWTUNNEL_ENCAP_IP6
}

// Encode implements netlink.Encap. The attributes of IPv4 (enum lwtunnel_ip_t) have the
// numbers of those of IPv6.
func (o *outerHeader) Encode() ([]byte, error) {
	var b []byte
	for _, a := range []*nl.RtAttr{
		nl.NewRtAttr(nl.LWTUNNEL_IP6_DST, o.remote.AsSlice()),
		nl.NewRtAttr(nl.LWTUNNEL_IP6_HOPLIMIT, []byte{hopLimit}),
		nl.NewRtAttr(nl.LWTUNNEL_IP6_FLAGS, binary.BigEndian.AppendUint16(nil, dontFragment)),
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
