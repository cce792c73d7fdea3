package e2e

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/netnstest"
)

const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8
)

// innerPacket is a bare IPv4 packet with a UDP datagram in it: the payload of
// one datagram on the wire. Its UDP checksum is 0, "not computed" (RFC 768).
func innerPacket(from, to netip.AddrPort, payload []byte) []byte {
	p := make([]byte, ipv4Header+udpHeader, ipv4Header+udpHeader+len(payload))
	total := cap(p)
	p[0] = 4<<4 | ipv4Header/4
	binary.BigEndian.PutUint16(p[2:], uint16(total))
	p[8] = 64 // time to live
	p[9] = unix.IPPROTO_UDP
	src, dst := from.Addr().As4(), to.Addr().As4()
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[10:], checksum.Finish(checksum.Add(0, p[:ipv4Header])))
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(udpHeader+len(payload)))
	return append(p, payload...)
}

// sender is a socket that plays the daemon of a host.
type sender struct {
	t    *testing.T
	conn net.PacketConn
}

func newSender(t *testing.T, h *netnstest.Host, from netip.AddrPort) *sender {
	t.Helper()
	conn, err := h.ListenPacket(t.Context(), "udp4", from.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &sender{t, conn}
}

func (s *sender) send(to netip.Addr, datagram []byte) {
	s.t.Helper()
	if _, err := s.conn.WriteTo(datagram, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, udpPort))); err != nil {
		s.t.Fatal(err)
	}
}

// receive returns the next datagram and its sender.
func (s *sender) receive() (netip.Addr, []byte) {
	s.t.Helper()
	from, payload := s.read(patience)
	if payload == nil {
		s.t.Fatalf("no datagram within %v", patience)
	}
	return from, payload
}

// pending reports whether a datagram has come.
func (s *sender) pending() bool {
	s.t.Helper()
	_, payload := s.read(time.Millisecond)
	return payload != nil
}

// has reports whether a payload is among the datagrams that have come. It drops those
// before.
func (s *sender) has(payload string) bool {
	s.t.Helper()
	for {
		_, got := s.read(time.Millisecond)
		if got == nil || string(got) == payload {
			return got != nil
		}
	}
}

// read returns the next datagram and its sender; the payload is nil if none comes within
// the limit.
func (s *sender) read(limit time.Duration) (from netip.Addr, payload []byte) {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	n, at, err := s.conn.ReadFrom(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return from, nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return at.(*net.UDPAddr).AddrPort().Addr().Unmap(), buf[:n]
}
