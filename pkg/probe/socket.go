package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// awaitTimeout is the longest wait of await, in milliseconds.
const awaitTimeout = 50

// icmpSocket sends echo requests and receives replies.
//
// It is not in the runtime's poller: each reply would wake the process, which
// costs more than to read twenty. Replies stay in the socket's buffer until
// receive. The kernel stamps each with its arrival (SO_TIMESTAMPNS), as for
// ping(8). For that it reads its clock for every packet that arrives at the host;
// at 500,000 packets a second the cost is not measurable.
type icmpSocket struct {
	file   *os.File
	conn   syscall.RawConn
	family inet.Family
	raw    bool // SOCK_RAW: an IPv4 message has its IP header
	// message and oob hold the last message and its control messages.
	message, oob []byte
}

// datagram is a received ICMP message.
type datagram struct {
	message []byte // valid until the next receive
	from    netip.Addr
	// at is the arrival on the wall clock; zero if the kernel did not stamp it.
	at time.Time
}

// openSocket opens a ping socket, which needs no privilege if
// net.ipv4.ping_group_range has our group (systemd sets it). Otherwise it opens a
// raw one, which needs CAP_NET_RAW and receives replies to the identifier id. The
// socket is bound to source if this host has that address. host-gw has no device
// with it; there the kernel chooses.
func openSocket(source netip.Addr, id uint16) (*icmpSocket, error) {
	s, err := openKind(unix.SOCK_DGRAM, source, id)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPROTONOSUPPORT) {
		s, err = openKind(unix.SOCK_RAW, source, id)
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("open ICMP socket, which needs CAP_NET_RAW or `sysctl net.ipv4.ping_group_range=\"0 2147483647\"`: %w", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open ICMP socket: %w", err)
	}
	return s, nil
}

func openKind(kind int, source netip.Addr, id uint16) (*icmpSocket, error) {
	// os.NewFile leaves a blocking descriptor out of the poller. All calls pass
	// MSG_DONTWAIT.
	family := inet.Of(source)
	domain, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if family == inet.IPv6 {
		domain, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &icmpSocket{
		file: os.NewFile(uintptr(fd), "icmp"), family: family, raw: kind == unix.SOCK_RAW,
		message: make([]byte, 1<<16), oob: make([]byte, 256),
	}
	if s.conn, err = s.file.SyscallConn(); err == nil {
		err = s.setOptions(fd, id)
	}
	if err == nil {
		err = bindIfLocal(fd, source)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// bindIfLocal binds a socket to source if an interface has that address. Before Linux
// 5.14 the lowest address of a subnet is a broadcast address. A raw socket takes that,
// and gets no reply then (raw_bind, net/ipv4/raw.c).
func bindIfLocal(fd int, source netip.Addr) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	local := func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr() == source
	}
	if !slices.ContainsFunc(addrs, local) {
		return nil
	}
	if err := unix.Bind(fd, sockaddr(source)); !errors.Is(err, unix.EADDRNOTAVAIL) { // as while it is tentative
		return os.NewSyscallError("bind", err)
	}
	return nil
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

func (s *icmpSocket) setOptions(fd int, id uint16) error {
	if s.family == inet.IPv6 {
		return s.setIPv6Options(fd, id)
	}
	// PROBE sets DF and ignores the kernel's MTU of the path (ip(7)).
	err := errors.Join(
		os.NewSyscallError("setsockopt IP_MTU_DISCOVER", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)),
		os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)))
	if s.raw {
		// ICMP_FILTER, option 1 of SOL_RAW, is a mask of the types to drop: all but
		// the echo reply, type 0 (include/uapi/linux/icmp.h).
		filtered := os.NewSyscallError("setsockopt ICMP_FILTER", unix.SetsockoptInt(fd, unix.SOL_RAW, 1, ^1))
		err = errors.Join(err, filtered, filterID(fd, id,
			unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH},       // the length of the IP header
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 4})) // the identifier behind it
	}
	return err
}

// setIPv6Options is setOptions for ICMPv6.
func (s *icmpSocket) setIPv6Options(fd int, id uint16) error {
	// PROBE ignores the kernel's MTU of the path, and DONTFRAG keeps the kernel from
	// fragmenting at the sender (ipv6(7), RFC 3542, section 11.2).
	err := errors.Join(
		os.NewSyscallError("setsockopt IPV6_MTU_DISCOVER", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)),
		os.NewSyscallError("setsockopt IPV6_DONTFRAG", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)),
		os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)))
	if s.raw {
		// A bit of the filter drops a type (RFC 3542, section 3.2): all but the echo
		// reply.
		var types unix.ICMPv6Filter
		for i := range types.Data {
			types.Data[i] = ^uint32(0)
		}
		types.Data[ipv6.ICMPTypeEchoReply/32] &^= 1 << (ipv6.ICMPTypeEchoReply % 32)
		filtered := os.NewSyscallError("setsockopt ICMPV6_FILTER", unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &types))
		err = errors.Join(err, filtered, filterID(fd, id, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4}))
	}
	return err
}

// filterID drops replies to other identifiers than that which load reads. A raw socket
// receives the replies to every process, and a flood of them would fill its buffer.
func filterID(fd int, id uint16, load ...unix.SockFilter) error {
	filter := append(load, []unix.SockFilter{
		{Code: unix.BPF_JMP | unix.BPF_JEQ, K: uint32(id), Jt: 1},
		{Code: unix.BPF_RET},
		{Code: unix.BPF_RET, K: 1 << 16}, // the bytes to keep
	}...)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}

// Close closes the socket. Later calls return os.ErrClosed.
func (s *icmpSocket) Close() error { return s.file.Close() }

// control runs f with the descriptor, which stays open during the call.
func (s *icmpSocket) control(f func(fd int) error) error {
	var ferr error
	if err := s.conn.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

func (s *icmpSocket) send(message []byte, to netip.Addr) error {
	return s.control(func(fd int) error {
		return os.NewSyscallError("sendto", unix.Sendto(fd, message, unix.MSG_DONTWAIT, sockaddr(to)))
	})
}

// await waits for a message, awaitTimeout at most.
func (s *icmpSocket) await() error {
	return s.control(func(fd int) error {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, awaitTimeout)
		if errors.Is(err, unix.EINTR) {
			return nil
		}
		return os.NewSyscallError("poll", err)
	})
}

// receive returns the next message, or EAGAIN if there is none.
func (s *icmpSocket) receive() (datagram, error) {
	var n, controls int
	var from syscall.Sockaddr
	err := s.control(func(fd int) (err error) {
		// unix.Recvmsg reads the socket's protocol on each call.
		n, controls, _, from, err = syscall.Recvmsg(fd, s.message, s.oob, unix.MSG_DONTWAIT)
		return os.NewSyscallError("recvmsg", err)
	})
	if err != nil {
		return datagram{}, err
	}
	d := datagram{message: s.message[:n], at: arrival(s.oob[:controls])}
	switch a := from.(type) {
	case *syscall.SockaddrInet4:
		d.from = netip.AddrFrom4(a.Addr)
	case *syscall.SockaddrInet6:
		d.from = netip.AddrFrom16(a.Addr)
	}
	if s.raw && s.family == inet.IPv4 {
		h, err := ipv4.ParseHeader(d.message)
		if err != nil || h.Len > n {
			return datagram{from: d.from}, nil // no ICMP message, so not a reply to us
		}
		d.message = d.message[h.Len:]
	}
	return d, nil
}

// arrival reads SCM_TIMESTAMPNS (__sock_recv_timestamp, net/socket.c).
func arrival(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Time{}
	}
	for _, c := range messages {
		var t unix.Timespec
		if c.Header.Level != unix.SOL_SOCKET || c.Header.Type != unix.SCM_TIMESTAMPNS {
			continue
		}
		if _, err := binary.Decode(c.Data, binary.NativeEndian, &t); err == nil {
			return time.Unix(t.Unix())
		}
	}
	return time.Time{}
}
