package probe

import (
	"encoding/binary"
	"math/rand/v2"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/coreos/flannel/pkg/inet"
)

const (
	cookieLen = 8
	// echoHeaderLen is the length of the header of an echo message (RFC 792, RFC 4443).
	echoHeaderLen = 8
)

// headersLen returns the length of an IP header without options and an ICMP header.
func headersLen(f inet.Family) int { return f.HeaderLen() + echoHeaderLen }

// SmallSize returns the size of a small probe, and of the smallest packet that Ping
// sends, in bytes: both headers and the cookie.
func SmallSize(f inet.Family) int { return headersLen(f) + cookieLen }

// stamp identifies our echo requests. On a ping socket the kernel sets the
// identifier itself. A raw socket receives replies to others' requests too, which
// have another cookie.
type stamp struct {
	family inet.Family
	id     uint16
	cookie [cookieLen]byte
}

func newStamp(f inet.Family) (s stamp) {
	s.family = f
	s.id = uint16(rand.Uint32())
	binary.BigEndian.PutUint64(s.cookie[:], rand.Uint64())
	return s
}

// request returns an ICMP echo request for a packet of size bytes with the IP header;
// SmallSize at least. The kernel adds the checksum of ICMPv6.
func (s stamp) request(seq uint16, size int) ([]byte, error) {
	data := make([]byte, max(size, SmallSize(s.family))-headersLen(s.family))
	copy(data, s.cookie[:])
	var echo icmp.Type = ipv4.ICMPTypeEcho
	if s.family == inet.IPv6 {
		echo = ipv6.ICMPTypeEchoRequest
	}
	m := icmp.Message{Type: echo, Body: &icmp.Echo{ID: int(s.id), Seq: int(seq), Data: data}}
	return m.Marshal(nil)
}

// reply parses an ICMP message. ok is false if it does not answer our request.
// size is that of its packet with the IP header.
func (s stamp) reply(message []byte) (seq uint16, size int, ok bool) {
	var reply icmp.Type = ipv4.ICMPTypeEchoReply
	if s.family == inet.IPv6 {
		reply = ipv6.ICMPTypeEchoReply
	}
	m, err := icmp.ParseMessage(reply.Protocol(), message)
	if err != nil || m.Type != reply {
		return 0, 0, false
	}
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || len(echo.Data) < cookieLen || [cookieLen]byte(echo.Data) != s.cookie {
		return 0, 0, false
	}
	return uint16(echo.Seq), len(message) + s.family.HeaderLen(), true
}
