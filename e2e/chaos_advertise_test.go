package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"github.com/coreos/flannel/pkg/netnstest"
)

// advertisedPrefix is the router's, and not the hosts'.
var advertisedPrefix = netip.MustParsePrefix("fd00:99::/64")

// advertise sends a router advertisement for a prefix, from the switch to all hosts
// (RFC 4861, section 4.2), with a lifetime of prefix and router.
func (r *faultRig) advertise(lifetime time.Duration) {
	r.t.Helper()
	seconds := uint32(lifetime.Seconds())
	body := binary.BigEndian.AppendUint16([]byte{64, 0}, uint16(seconds)) // hop limit, flags, lifetime
	body = append(body, make([]byte, 8)...)                               // reachable time, retransmission time
	body = append(body, 3, 4, byte(advertisedPrefix.Bits()), 0xc0)        // prefix information: on the link, autonomous (section 4.6.2)
	body = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(body, seconds), seconds)
	body = append(append(body, 0, 0, 0, 0), advertisedPrefix.Addr().AsSlice()...)
	message, err := (&icmp.Message{Type: ipv6.ICMPTypeRouterAdvertisement, Body: &icmp.RawBody{Data: body}}).Marshal(nil)
	r.must(err)
	r.must(r.lab.Router().Do(func() error {
		dev, err := net.InterfaceByName(netnstest.Switch)
		if err != nil {
			return err
		}
		c, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
		if err != nil {
			return err
		}
		defer c.Close()
		p := c.IPv6PacketConn()
		if err := p.SetMulticastHopLimit(255); err != nil { // others are ignored
			return err
		}
		_, err = p.WriteTo(message, &ipv6.ControlMessage{IfIndex: dev.Index}, &net.IPAddr{IP: net.IPv6linklocalallnodes})
		return err
	}))
}
