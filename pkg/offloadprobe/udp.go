package offloadprobe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/udpsock"
)

const (
	// maxDatagram is the largest receive: merged datagrams, 64 KiB at most.
	maxDatagram = 1 << 16
	// controlLen is room for IP_TOS or IPV6_TCLASS, and UDP_GRO (cmsg(3)).
	controlLen = 64
)

// udpSocket sends shapes and receives datagrams. One goroutine uses it at a time.
type udpSocket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort // as it was asked for
	ip    *ipOptions
}

// datagram is a received datagram.
type datagram struct {
	data []byte // valid until the next receive
	from netip.AddrPort
	tos  byte // IPv6: the traffic class
}

// listenUDP opens a socket at local. merge lets the kernel merge datagrams of one
// sender before the socket receives them.
func listenUDP(ctx context.Context, local netip.AddrPort, merge bool) (*udpSocket, error) {
	family := inet.Of(local.Addr())
	s := &udpSocket{local: local, ip: &optionsOf[family]}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error { return s.ip.setUDP(fd, merge) })
	}}
	conn, err := config.ListenPacket(ctx, network("udp", family), local.String())
	if err != nil {
		return nil, fmt.Errorf("open socket at %v: %w", local, err)
	}
	s.conn = conn.(*net.UDPConn)
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

func (s *udpSocket) close() error { return s.conn.Close() }

// receive waits for datagrams, and calls take for each. Merged ones come apart again.
func (s *udpSocket) receive(buffer, control []byte, take func(datagram)) error {
	n, controls, _, from, err := s.conn.ReadMsgUDPAddrPort(buffer, control)
	if err != nil {
		return err
	}
	d := datagram{from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	segment := n
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	if err != nil {
		return fmt.Errorf("parse control messages: %w", err)
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == int32(s.ip.level) && m.Header.Type == int32(s.ip.tos):
			d.tos = tosOf(m.Data)
		case m.Header.Level == unix.SOL_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 4:
			if size := int(binary.NativeEndian.Uint32(m.Data)); size > 0 {
				segment = size
			}
		}
	}
	for data := buffer[:n]; len(data) > 0; {
		d.data = data[:min(segment, len(data))]
		data = data[len(d.data):]
		take(d)
	}
	return nil
}

// tosOf reads the value of IP_TOS, a byte, or of IPV6_TCLASS, an int.
func tosOf(data []byte) byte {
	switch {
	case len(data) >= 4:
		return byte(binary.NativeEndian.Uint32(data))
	case len(data) > 0:
		return data[0]
	}
	return 0
}

// send sends the datagrams of a form, which have one size.
func (s *udpSocket) send(f form, messages [][]byte, to netip.AddrPort) error {
	if f.segment {
		err := s.sendSegments(messages, to, f.tos)
		// Before Linux 6.12 a device without checksum offload takes no super-packets
		// (udp_send_skb, net/ipv4/udp.c). Containers get the same error, and send their
		// datagrams one by one.
		if !errors.Is(err, unix.EIO) {
			return err
		}
	}
	var errs []error
	for _, m := range messages {
		if f.offload || f.segment {
			errs = append(errs, s.sendOffloaded(m, to, f.tos))
		} else {
			errs = append(errs, s.sendPlain(m, to, f.tos))
		}
	}
	return errors.Join(errs...)
}

// sendOffloaded sends a datagram whose checksum the kernel leaves to the device, if the
// device has that offload.
func (s *udpSocket) sendOffloaded(b []byte, to netip.AddrPort, tos byte) error {
	return s.sendmsg(b, s.ip.tosControl(tos), to, 0)
}

// sendPlain sends a datagram whose checksum the kernel computes. It does so if more
// data may follow the first part of the datagram (__ip_append_data,
// net/ipv4/ip_output.c; __ip6_append_data, net/ipv6/ip6_output.c).
func (s *udpSocket) sendPlain(b []byte, to netip.AddrPort, tos byte) error {
	const first = headerLen / 2
	if err := s.sendmsg(b[:first], s.ip.tosControl(tos), to, unix.MSG_MORE); err != nil {
		return err
	}
	err := s.sendmsg(b[first:], nil, to, 0)
	if err != nil { // the first part must not begin the next datagram
		err = errors.Join(err, control(s.raw, func(fd int) error {
			return os.NewSyscallError("setsockopt UDP_CORK", unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_CORK, 0))
		}))
	}
	return err
}

// sendSegments sends datagrams of one size as one super-packet.
func (s *udpSocket) sendSegments(messages [][]byte, to netip.AddrPort, tos byte) error {
	var all []byte
	for _, m := range messages {
		all = append(all, m...)
	}
	size := binary.NativeEndian.AppendUint16(nil, uint16(len(messages[0])))
	ancillary := append(s.ip.tosControl(tos), controlMessage(unix.SOL_UDP, unix.UDP_SEGMENT, size)...)
	return s.sendmsg(all, ancillary, to, 0)
}

func (s *udpSocket) sendmsg(b, ancillary []byte, to netip.AddrPort, flags int) error {
	return control(s.raw, func(fd int) error {
		_, err := unix.SendmsgN(fd, b, ancillary, udpsock.Sockaddr(to), flags|unix.MSG_DONTWAIT)
		return os.NewSyscallError("sendmsg", err)
	})
}

// control runs do with the descriptor of a connection, which stays open during the call.
func control(raw syscall.RawConn, do func(fd int) error) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}

// controlMessage returns a control message with its padding (struct cmsghdr, cmsg(3)).
func controlMessage(level, kind int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	if unix.CmsgLen(0) == 16 { // cmsg_len is a size_t
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
		binary.NativeEndian.PutUint32(b[8:], uint32(level))
		binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(len(data))))
		binary.NativeEndian.PutUint32(b[4:], uint32(level))
		binary.NativeEndian.PutUint32(b[8:], uint32(kind))
	}
	copy(b[unix.CmsgLen(0):], data)
	return b
}
