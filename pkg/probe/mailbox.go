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

// mailbox is a socket for pings that nobody waits at: answers lie in its buffer
// until somebody looks, and the kernel has written on each when it came
// (SO_TIMESTAMPNS), as ping(8) wants it. Go's poller does not know of it: each
// answer would wake the program, which costs more than to take twenty of them.
type mailbox struct {
	fd  int
	raw bool
	// message and control are the last answer's.
	message, control []byte
}

// letter is an ICMP message and how it came.
type letter struct {
	message []byte // until the next one is taken
	from    netip.Addr
	// at is the time on the wall when it came; zero where the kernel did not say.
	at time.Time
}

// openMailbox opens one for answers to the identifier id. Close it.
func openMailbox(source netip.Addr, id uint16) (*mailbox, error) {
	fd, raw, err := open(source)
	if err != nil {
		return nil, err
	}
	m := &mailbox{fd: fd, raw: raw, message: make([]byte, 1<<16), control: make([]byte, 256)}
	if err := m.arrange(id); err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for pings: %w", err), m.Close())
	}
	return m, nil
}

func (m *mailbox) arrange(id uint16) error {
	if err := unix.SetsockoptInt(m.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_TIMESTAMPNS", err)
	}
	if !m.raw {
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
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(m.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}

func (m *mailbox) Close() error { return os.NewSyscallError("close", unix.Close(m.fd)) }

func (m *mailbox) send(message []byte, to netip.Addr) error {
	return os.NewSyscallError("sendto", unix.Sendto(m.fd, message, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.As4()}))
}

// take gives the next answer; EAGAIN: there is none.
func (m *mailbox) take() (letter, error) {
	n, controls, _, from, err := syscall.Recvmsg(m.fd, m.message, m.control, unix.MSG_DONTWAIT) // unix's asks the socket's protocol each time
	if err != nil {
		return letter{}, os.NewSyscallError("recvmsg", err)
	}
	l := letter{message: m.message[:n], at: arrival(m.control[:controls])}
	if a, ok := from.(*syscall.SockaddrInet4); ok {
		l.from = netip.AddrFrom4(a.Addr)
	}
	if m.raw { // with the IP header
		h, err := ipv4.ParseHeader(l.message)
		if err != nil || h.Len > n {
			return letter{from: l.from}, nil // not a message, so not ours
		}
		l.message = l.message[h.Len:]
	}
	return l, nil
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
