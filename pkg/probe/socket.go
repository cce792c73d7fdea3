package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
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
	file *os.File
	conn syscall.RawConn
	raw  bool // SOCK_RAW: a message has its IP header
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
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &icmpSocket{
		file: os.NewFile(uintptr(fd), "icmp"), raw: kind == unix.SOCK_RAW,
		message: make([]byte, 1<<16), oob: make([]byte, 256),
	}
	if s.conn, err = s.file.SyscallConn(); err == nil {
		err = s.setOptions(fd, id)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()})
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			err = nil
		}
		err = os.NewSyscallError("bind", err)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *icmpSocket) setOptions(fd int, id uint16) error {
	// PROBE sets DF and ignores the kernel's MTU of the path (ip(7)).
	err := errors.Join(
		os.NewSyscallError("setsockopt IP_MTU_DISCOVER", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)),
		os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)))
	if s.raw {
		// ICMP_FILTER, option 1 of SOL_RAW, is a mask of the types to drop: all but
		// the echo reply, type 0 (include/uapi/linux/icmp.h).
		filtered := os.NewSyscallError("setsockopt ICMP_FILTER", unix.SetsockoptInt(fd, unix.SOL_RAW, 1, ^1))
		err = errors.Join(err, filtered, filterID(fd, id))
	}
	return err
}

// filterID drops replies to other identifiers. A raw socket receives the replies
// to every process, and a flood of them would fill its buffer.
func filterID(fd int, id uint16) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH},      // the length of the IP header
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 4}, // the identifier behind it
		{Code: unix.BPF_JMP | unix.BPF_JEQ, K: uint32(id), Jt: 1},
		{Code: unix.BPF_RET},
		{Code: unix.BPF_RET, K: 1 << 16}, // the bytes to keep
	}
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
		return os.NewSyscallError("sendto", unix.Sendto(fd, message, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.As4()}))
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
	if a, ok := from.(*syscall.SockaddrInet4); ok {
		d.from = netip.AddrFrom4(a.Addr)
	}
	if s.raw {
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
