package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// unpolled is a socket for pings that nobody waits at: answers lie in its buffer
// until somebody looks, and the kernel has written on each when it came
// (SO_TIMESTAMPNS), as ping(8) and NTP's clients want it. For that the kernel
// reads its clock for each packet that arrives at the machine, which is less than
// can be measured at 500,000 a second. Go's poller does not know of the socket: each
// answer would wake the program, which costs more than to take twenty of them.
type unpolled struct {
	fd  int
	raw bool
	// message and control are the last answer's.
	message, control []byte
}

// datagram is an ICMP message and how it came.
type datagram struct {
	message []byte // until the next one is taken
	from    netip.Addr
	// at is the time on the wall when it came; zero where the kernel did not say.
	at time.Time
}

// openUnpolled opens one for answers to the identifier id. Close it.
func openUnpolled(source netip.Addr, id uint16) (*unpolled, error) {
	fd, raw, err := open(source)
	if err != nil {
		return nil, err
	}
	u := &unpolled{fd: fd, raw: raw, message: make([]byte, 1<<16), control: make([]byte, 256)}
	if err := u.arrange(id); err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for pings: %w", err), u.Close())
	}
	return u, nil
}

func (u *unpolled) arrange(id uint16) error {
	if err := unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_TIMESTAMPNS", err)
	}
	if !u.raw {
		return nil
	}
	// A raw socket hears the answers to everybody's pings, and a flood of them
	// would leave no room for ours.
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadMemShift{Off: 0}, // the length of the IP header, which is in front
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(id), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 16},
	})
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	code := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		code[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(u.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}

func (u *unpolled) Close() error { return os.NewSyscallError("close", unix.Close(u.fd)) }

func (u *unpolled) send(message []byte, to netip.Addr) error {
	return os.NewSyscallError("sendto", unix.Sendto(u.fd, message, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.As4()}))
}

// receive gives the next answer; EAGAIN: there is none.
func (u *unpolled) receive() (datagram, error) {
	n, controls, _, from, err := syscall.Recvmsg(u.fd, u.message, u.control, unix.MSG_DONTWAIT) // unix's asks the socket's protocol each time
	if err != nil {
		return datagram{}, os.NewSyscallError("recvmsg", err)
	}
	d := datagram{message: u.message[:n], at: arrival(u.control[:controls])}
	if a, ok := from.(*syscall.SockaddrInet4); ok {
		d.from = netip.AddrFrom4(a.Addr)
	}
	if u.raw { // with the IP header
		h, err := ipv4.ParseHeader(d.message)
		if err != nil || h.Len > n {
			return datagram{from: d.from}, nil // not a message, so not ours
		}
		d.message = d.message[h.Len:]
	}
	return d, nil
}

// arrival reads SCM_TIMESTAMPNS (net/core/sock.c, __sock_recv_timestamp).
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
