package probe

import (
	"encoding/binary"
	"math/rand/v2"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

const (
	// headersLen is the length of an IPv4 header without options and an ICMP header.
	headersLen = 20 + 8
	cookieLen  = 8
	// SmallSize is the size of a small probe, and of the smallest packet that Ping
	// sends, in bytes: both headers and the cookie.
	SmallSize = headersLen + cookieLen
	// protocolICMP is IPv4's ICMP, for icmp.ParseMessage (RFC 1700).
	protocolICMP = 1
)

// stamp identifies our echo requests. On a ping socket the kernel sets the
// identifier itself. A raw socket receives replies to others' requests too, which
// have another cookie.
type stamp struct {
	id     uint16
	cookie [cookieLen]byte
}

func newStamp() (s stamp) {
	s.id = uint16(rand.Uint32())
	binary.BigEndian.PutUint64(s.cookie[:], rand.Uint64())
	return s
}

// request returns an ICMP echo request for a packet of size bytes with the IPv4
// header; SmallSize at least.
func (s stamp) request(seq uint16, size int) ([]byte, error) {
	data := make([]byte, max(size, SmallSize)-headersLen)
	copy(data, s.cookie[:])
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(s.id), Seq: int(seq), Data: data}}
	return m.Marshal(nil)
}

// reply parses an ICMP message. ok is false if it does not answer our request.
// size is that of its packet with the IPv4 header.
func (s stamp) reply(message []byte) (seq uint16, size int, ok bool) {
	m, err := icmp.ParseMessage(protocolICMP, message)
	if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
		return 0, 0, false
	}
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || len(echo.Data) < cookieLen || [cookieLen]byte(echo.Data) != s.cookie {
		return 0, 0, false
	}
	return uint16(echo.Seq), len(message) + 20, true
}
