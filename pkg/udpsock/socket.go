package udpsock

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// Config configures a socket.
type Config struct {
	// Local is the address and port; for port 0 the kernel chooses. A socket with an
	// IPv6 address carries no IPv4.
	Local netip.AddrPort
	// Device binds the socket to an interface or a VRF (SO_BINDTODEVICE,
	// socket(7)); empty: to none.
	Device string
	// Buffer is the size of the socket's buffers in bytes, for each direction; 0
	// leaves the system's default. The kernel may set less.
	Buffer int
	// NoSegment turns UDP_SEGMENT off.
	NoSegment bool
	// Fragment makes the kernel split a datagram that is larger than the path's
	// MTU (IP_PMTUDISC_WANT, ip(7)). Otherwise no host splits it (IP_PMTUDISC_DO, with
	// DF in IPv4), and the send of a larger one fails with EMSGSIZE.
	Fragment bool

	// NoGRO turns UDP_GRO off. A SendConn has none.
	NoGRO bool
	// PacketInfo sets Message.To and Message.Interface (IP_PKTINFO, ip(7);
	// IPV6_RECVPKTINFO, ipv6(7)). A SendConn ignores it.
	PacketInfo bool
}

// bind binds a socket to Device and then to Local: an address of an interface in a VRF
// belongs to that VRF alone.
func (cfg Config) bind(fd int) error {
	if cfg.Device != "" {
		if err := unix.BindToDevice(fd, cfg.Device); err != nil {
			return fmt.Errorf("bind udp socket to %s: %w", cfg.Device, err)
		}
	}
	if cfg.Local.Addr().Is6() {
		// IPv4 has a socket of its own at the same port.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return os.NewSyscallError("setsockopt IPV6_V6ONLY", err)
		}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, Sockaddr(cfg.Local)))
}

// Socket is what a Sender sends by: a Conn or a SendConn.
type Socket interface {
	// write calls do with the descriptor until it returns true. The descriptor
	// stays open during the call.
	write(do func(fd uintptr) bool) error
	// awaitRoom is called within write if the send buffer is full. If it returns
	// true, do tries again, else do returns false.
	awaitRoom(fd uintptr) bool
	common() *socket
}

// socket is what Conn and SendConn have in common.
type socket struct {
	family     inet.Family
	raw        syscall.RawConn
	features   Features
	fragment   bool
	segmentOff atomic.Pointer[syscall.Errno] // why UDP_SEGMENT was turned off
}

func (s *socket) common() *socket { return s }

// setSendOptions sets the options of sockets that send.
func (s *socket) setSendOptions(cfg Config) error {
	s.fragment = cfg.Fragment
	discover := unix.IP_PMTUDISC_DO
	if cfg.Fragment {
		discover = unix.IP_PMTUDISC_WANT
	}
	level, name := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	if s.family == inet.IPv6 { // with the same values (linux/in6.h)
		level, name = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	s.features = Features{Segment: s.probeSegment(cfg), GRO: ErrSwitchedOff}
	return errors.Join(
		os.NewSyscallError("setsockopt IP_MTU_DISCOVER", s.setsockopt(level, name, discover)),
		s.setBuffer(sendBuffer, cfg.Buffer),
	)
}

// buffer is one of the two buffers of a socket.
type buffer struct {
	name         string
	force, plain int // the options that set its size
	limit        string
}

var (
	sendBuffer    = buffer{"send", unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, "net.core.wmem_max"}
	receiveBuffer = buffer{"receive", unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, "net.core.rmem_max"}
)

// setBuffer sets a buffer's size. With CAP_NET_ADMIN the size may exceed the limit.
// Without, also in a user namespace (sk_setsockopt in net/core/sock.c), the buffer may be
// smaller, which Features has.
func (s *socket) setBuffer(b buffer, size int) error {
	if size == 0 {
		return nil
	}
	if s.setsockopt(unix.SOL_SOCKET, b.force, size) != nil {
		if err := s.setsockopt(unix.SOL_SOCKET, b.plain, size); err != nil {
			return fmt.Errorf("set size of %s buffer: %w", b.name, err)
		}
	}
	return s.control(func(fd int) error {
		doubled, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, b.plain) // socket(7)
		if err != nil {
			return fmt.Errorf("get size of %s buffer: %w", b.name, err)
		}
		if has := doubled / 2; has < size {
			why := fmt.Errorf("%s buffer of %d bytes in place of %d: sysctl -w %s=%[3]d", b.name, has, size, b.limit)
			if s.features.Buffers != nil {
				why = fmt.Errorf("%w; %w", s.features.Buffers, why)
			}
			s.features.Buffers = why
		}
		return nil
	})
}

// SetMark sets the mark of sent packets (SO_MARK, socket(7)).
func (s *socket) SetMark(mark uint32) error {
	return s.setsockopt(unix.SOL_SOCKET, unix.SO_MARK, int(mark))
}

func (s *socket) setsockopt(level, name, value int) error {
	return s.control(func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) })
}

// control runs f with the descriptor, which stays open during the call.
func (s *socket) control(f func(fd int) error) error {
	var ferr error
	if err := s.raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
