package offloadprobe

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/inet"
)

// Fields of a TCP header by offset, and flags (RFC 9293, section 3.1).
const (
	tcpDestination = 2
	tcpSequence    = 4
	tcpAcked       = 8
	tcpFlags       = 13
	tcpChecksum    = 16
	tcpHeader      = 20

	flagSYN, flagACK = 1 << 1, 1 << 4
)

// synOptions are those of the kernel's SYN: MSS 1400, SACK permitted, a timestamp of 1,
// and a window scale of 7.
var synOptions = []byte{2, 4, 1400 >> 8, 1400 & 0xff, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}

// synProbe sends a SYN whose checksum this process computes, and waits for the answer.
// The kernel leaves the checksums of its own SYNs to the device. If only this SYN
// arrives, no firewall is the reason. The kernel resets the connection that it does
// not know.
type synProbe struct {
	local    netip.Addr
	to       netip.AddrPort
	port     uint16 // of the SYN
	sequence uint32
	wait     time.Duration
}

func newSYNProbe(local netip.Addr, to netip.AddrPort, wait time.Duration) *synProbe {
	const first, count = 49152, 16384 // RFC 6335, section 6
	return &synProbe{local, to, uint16(first + rand.N(count)), rand.Uint32(), wait}
}

// segment returns the SYN.
func (p *synProbe) segment() []byte {
	b := append(make([]byte, tcpHeader), synOptions...)
	binary.BigEndian.PutUint16(b, p.port)
	binary.BigEndian.PutUint16(b[tcpDestination:], p.to.Port())
	binary.BigEndian.PutUint32(b[tcpSequence:], p.sequence)
	b[tcpFlags-1], b[tcpFlags] = byte(len(b)/4)<<4, flagSYN
	binary.BigEndian.PutUint16(b[tcpFlags+1:], 0xffff) // window
	sum := checksum.Add(unix.IPPROTO_TCP+uint64(len(b)), p.local.AsSlice())
	sum = checksum.Add(sum, p.to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[tcpChecksum:], checksum.Finish(checksum.Add(sum, b)))
	return b
}

// accepted reports whether a segment acknowledges the SYN, with a SYN.
func (p *synProbe) accepted(b []byte) bool {
	return len(b) >= tcpHeader && binary.BigEndian.Uint16(b) == p.to.Port() &&
		binary.BigEndian.Uint16(b[tcpDestination:]) == p.port && b[tcpFlags]&(flagSYN|flagACK) == flagSYN|flagACK &&
		binary.BigEndian.Uint32(b[tcpAcked:]) == p.sequence+1
}

// run reports whether the SYN has no answer. The error is EPERM without CAP_NET_RAW.
func (p *synProbe) run(ctx context.Context, within func(func() error) error) (unanswered bool, err error) {
	var conn *net.IPConn
	err = within(func() (err error) {
		name := network("ip", inet.Of(p.local)) + ":tcp"
		conn, err = net.DialIP(name, &net.IPAddr{IP: p.local.AsSlice()}, &net.IPAddr{IP: p.to.Addr().AsSlice()})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("open socket for a SYN: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(p.wait)); err != nil {
		return false, fmt.Errorf("set deadline of a SYN: %w", err)
	}
	if _, err := conn.Write(p.segment()); err != nil {
		return false, fmt.Errorf("send SYN: %w", err)
	}
	b := make([]byte, maxDatagram)
	for { // other segments of the host come as well
		n, _, err := conn.ReadFromIP(b)
		switch {
		case err == nil && p.accepted(b[:n]):
			return false, nil
		case err != nil && !isICMP(err):
			return true, nil // the deadline
		}
	}
}
