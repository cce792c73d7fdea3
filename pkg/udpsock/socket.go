package udpsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Config configures a socket.
type Config struct {
	// Local is the IPv4 address and port; for port 0 the kernel chooses.
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
	// MTU (IP_PMTUDISC_WANT, ip(7)). Otherwise datagrams carry DF
	// (IP_PMTUDISC_DO), and the send of a larger one fails with EMSGSIZE.
	Fragment bool

	// NoGRO turns UDP_GRO off. A SendConn has none.
	NoGRO bool
	// PacketInfo sets Message.To and Message.Interface (IP_PKTINFO, ip(7)). A SendConn ignores it.
	PacketInfo bool
}

// bindDevice binds a socket to Device, before it is bound to Local: an address of an
// interface in a VRF belongs to that VRF alone.
func (cfg Config) bindDevice(fd int) error {
	if cfg.Device == "" {
		return nil
	}
	if err := unix.BindToDevice(fd, cfg.Device); err != nil {
		return fmt.Errorf("bind udp socket to %s: %w", cfg.Device, err)
	}
	return nil
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
	s.features = Features{Segment: s.probeSegment(cfg), GRO: ErrSwitchedOff}
	return errors.Join(
		os.NewSyscallError("setsockopt IP_MTU_DISCOVER", s.setsockopt(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discover)),
		os.NewSyscallError("setsockopt SO_SNDBUF", s.setBuffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.Buffer)),
	)
}

// setBuffer sets a buffer's size. With CAP_NET_ADMIN the size may exceed
// net.core.rmem_max and wmem_max.
func (s *socket) setBuffer(force, plain, size int) error {
	if size == 0 || s.setsockopt(unix.SOL_SOCKET, force, size) == nil {
		return nil
	}
	return s.setsockopt(unix.SOL_SOCKET, plain, size)
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

// Dest is a destination of datagrams, in the kernel's form. It is immutable. A
// Sender compares destinations by their pointers.
type Dest struct {
	sockaddr unix.RawSockaddrInet4
	// source is the local address to send from; all zero: the route's.
	source [4]byte
}

// NewDest returns the Dest of an IPv4 address and a port.
func NewDest(addr [4]byte, port uint16) *Dest {
	// The port is big-endian on every machine.
	var be [2]byte
	binary.BigEndian.PutUint16(be[:], port)
	return &Dest{sockaddr: unix.RawSockaddrInet4{
		Family: unix.AF_INET,
		Port:   binary.NativeEndian.Uint16(be[:]),
		Addr:   addr,
	}}
}

// port returns the port of an address in the kernel's form.
func port(sa *unix.RawSockaddrInet4) uint16 {
	var be [2]byte
	binary.NativeEndian.PutUint16(be[:], sa.Port)
	return binary.BigEndian.Uint16(be[:])
}

// From returns the same destination for datagrams from source. If this host does
// not have that address, their sends fail with ENETUNREACH
// (ip_route_output_key_hash_rcu, net/ipv4/route.c).
func (d *Dest) From(source [4]byte) *Dest { return &Dest{d.sockaddr, source} }
