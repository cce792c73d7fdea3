package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

var (
	// hostRange contains the addresses of simulated hosts, and fillRange their
	// subnets. The switch answers for all of them.
	hostRange = netip.MustParsePrefix("198.18.0.0/15")
	fillRange = netip.MustParsePrefix("10.128.0.0/9")
)

// listens are the ports of encapsulated packets, and the number of bytes before
// the IP packet.
var listens = map[uint16]int{
	8285: 0,      // udp
	8472: 8 + 14, // vxlan: its own header and Ethernet's (RFC 7348, section 5)
}

// answerPings gives the switch all addresses of hostRange and fillRange, and makes
// it answer pings, encapsulated ones included.
func (s *scale) answerPings(ctx context.Context, g *errgroup.Group, peers *netnstest.Host) error {
	lo, err := peers.Netlink().LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look up loopback: %w", err)
	}
	for _, p := range []netip.Prefix{hostRange, fillRange} {
		err := peers.Netlink().RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: netnstest.IPNet(p), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		})
		if err != nil {
			return fmt.Errorf("add local route %v: %w", p, err)
		}
	}
	for port, offset := range listens {
		c, err := peers.ListenPacket(ctx, "udp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		if err := disableChecksum(c); err != nil {
			return errors.Join(err, c.Close())
		}
		p := ipv4.NewPacketConn(c)
		if err := p.SetControlMessage(ipv4.FlagDst, true); err != nil {
			return errors.Join(err, c.Close())
		}
		context.AfterFunc(ctx, func() { _ = c.Close() }) // which ends the reader
		g.Go(func() error { return echo(ctx, p, int(port), offset) })
	}
	return nil
}

// echo answers pings from their destination address, to the port that all hosts
// listen on.
func echo(ctx context.Context, c *ipv4.PacketConn, port, offset int) error {
	buf := make([]byte, 1<<16)
	for {
		n, control, from, err := c.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("receive pings: %w", err)
		}
		if !toReply(buf[:n], offset) {
			continue
		}
		to, ok := from.(*net.UDPAddr)
		if !ok {
			return fmt.Errorf("receive pings: %v is no UDP address", from)
		}
		to.Port = port
		back := &ipv4.ControlMessage{Src: control.Dst}
		// The daemon's host may be gone; the answer is not needed then.
		_, _ = c.WriteTo(buf[:n], back, to)
	}
}

// disableChecksum makes c send with a UDP checksum of 0, like kernels, as a daemon's
// kernel data path expects.
func disableChecksum(c net.PacketConn) error {
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return fmt.Errorf("reach socket: %w", err)
	}
	e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) })
	return errors.Join(e, os.NewSyscallError("setsockopt SO_NO_CHECK", err))
}

// toReply turns a ping into its answer in place; false if it is no ping.
func toReply(datagram []byte, offset int) bool {
	if len(datagram) < offset+ipv4.HeaderLen+8 {
		return false
	}
	if offset > 0 { // Ethernet's addresses
		swap(datagram[offset-14:], 6)
	}
	packet := datagram[offset:]
	message := packet[ipv4.HeaderLen:]
	if packet[0] != 0x45 || packet[9] != unix.IPPROTO_ICMP || message[0] != byte(ipv4.ICMPTypeEcho) {
		return false
	}
	swap(packet[12:], 4)
	message[0] = byte(ipv4.ICMPTypeEchoReply)
	// The type's change from 8 to 0 adds 0x0800 to the checksum (RFC 1624).
	sum := uint32(binary.BigEndian.Uint16(message[2:])) + 0x0800
	binary.BigEndian.PutUint16(message[2:], uint16(sum+sum>>16))
	return true
}

// swap exchanges two neighbouring fields of n bytes.
func swap(b []byte, n int) {
	for i := range n {
		b[i], b[n+i] = b[n+i], b[i]
	}
}
