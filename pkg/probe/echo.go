package probe

import (
	"encoding/binary"
	"math/rand/v2"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

const (
	// headersLen is that of an IPv4 header without options and an ICMP header.
	headersLen = 20 + 8
	cookieLen  = 8
	// smallLen is the length of a small probe: IPv4 header, ICMP header, cookie.
	smallLen = headersLen + cookieLen
	// protocolICMP is what icmp.ParseMessage knows IPv4's messages by (RFC 1700).
	protocolICMP = 1
)

// stamp marks our echo requests. The cookie tells them from others' on a raw
// socket, which hears all replies; on a ping socket the kernel sets the
// identifier itself.
type stamp struct {
	id     uint16
	cookie [cookieLen]byte
}

func newStamp() (s stamp) {
	s.id = uint16(rand.Uint32())
	binary.BigEndian.PutUint64(s.cookie[:], rand.Uint64())
	return s
}

// request is an ICMP echo request that makes a packet of size bytes, IPv4
// header included; smallLen at least.
func (s stamp) request(seq uint16, size int) ([]byte, error) {
	data := make([]byte, max(size, smallLen)-headersLen)
	copy(data, s.cookie[:])
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(s.id), Seq: int(seq), Data: data}}
	return m.Marshal(nil)
}

// reply reads an ICMP message. ok is false if it answers no request of ours;
// size is that of its packet, IPv4 header included.
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
