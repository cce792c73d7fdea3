package udpsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config says how to open sockets.
type Config struct {
	// Local is the IPv4 address and port; port 0 lets the kernel choose.
	Local netip.AddrPort
	// Buffer is the size to ask for of each socket's buffers, in bytes and each
	// direction; 0 leaves the system's default.
	Buffer int
	// NoSegment and NoGRO leave the offload of that name out.
	NoSegment, NoGRO bool
	// SendOnly makes the kernel drop what arrives, and keeps the socket out of the
	// runtime's poller: see sendOnly.
	SendOnly bool
	// Fragment makes the kernel split a datagram that is larger than the path
	// takes (IP_PMTUDISC_WANT, ip(7)).
	Fragment bool
	// PacketInfo makes each message tell which local address it came to
	// (IP_PKTINFO, ip(7)).
	PacketInfo bool
}

// Conn is an unconnected UDP socket. It is safe for concurrent use, and so are
// a Sender and a Receiver of the same Conn towards each other. Without
// Config.Fragment, datagrams are sent with "don't fragment" (IP_PMTUDISC_DO):
// one that is too large for the path fails with EMSGSIZE.
type Conn struct {
	udp      *net.UDPConn // nil if it is sendOnly
	only     *sendOnly    // nil unless it is
	raw      syscall.RawConn
	features Features
	fragment bool
	receive  int
	send     int

	segmentOff atomic.Pointer[string]
	drops      atomic.Uint64
	lastOvfl   uint32 // owned by the receiver
}

// Listen opens n sockets that share one local address and port. The kernel
// spreads arriving flows over them by a hash of addresses and ports
// (SO_REUSEPORT, socket(7)). The port must not be in use before.
func Listen(ctx context.Context, cfg Config, n int) (_ []*Conn, err error) {
	var conns []*Conn
	defer func() {
		if err != nil {
			for _, c := range conns {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	for i := range max(n, 1) {
		c, err := listen(ctx, cfg, i > 0)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
		// The first socket is bound without SO_REUSEPORT, which fails if any
		// other process has the port, and admits the others only then.
		if i == 0 && n > 1 {
			if err := c.setsockopt(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				return nil, fmt.Errorf("share port %v: %w", c.LocalAddr(), err)
			}
			cfg.Local = c.LocalAddr()
		}
	}
	return conns, nil
}

// Open opens one socket. Its address is a number, so there is nothing to wait for.
func Open(cfg Config) (*Conn, error) {
	if cfg.SendOnly {
		return listenSendOnly(cfg, false)
	}
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(cfg.Local))
	if err != nil {
		return nil, fmt.Errorf("listen on udp %v: %w", cfg.Local, err)
	}
	return prepare(&Conn{udp: udp}, cfg)
}

func listen(ctx context.Context, cfg Config, share bool) (*Conn, error) {
	if cfg.SendOnly {
		return listenSendOnly(cfg, share)
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		if !share {
			return nil
		}
		var err error
		cerr := rc.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(cerr, err)
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", cfg.Local.String())
	if err != nil {
		return nil, fmt.Errorf("listen on udp %v: %w", cfg.Local, err)
	}
	return prepare(&Conn{udp: pc.(*net.UDPConn)}, cfg)
}

// prepare sets a new socket up, and closes it where that fails.
func prepare(c *Conn, cfg Config) (*Conn, error) {
	c.fragment = cfg.Fragment
	if err := c.setup(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("set up udp socket %v: %w", cfg.Local, err), c.Close())
	}
	return c, nil
}

// setup sets the socket's options.
func (c *Conn) setup(cfg Config) error {
	var err error
	if c.only != nil {
		c.raw, err = c.only.file.SyscallConn()
	} else {
		c.raw, err = c.udp.SyscallConn()
	}
	if err != nil {
		return err
	}
	discover := unix.IP_PMTUDISC_DO
	if cfg.Fragment {
		discover = unix.IP_PMTUDISC_WANT
	}
	if err := c.setsockopt(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discover); err != nil {
		return fmt.Errorf("IP_MTU_DISCOVER: %w", err)
	}
	if cfg.PacketInfo {
		if err := c.setsockopt(unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err != nil {
			return fmt.Errorf("IP_PKTINFO: %w", err)
		}
	}
	if c.send, err = c.setBuffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.Buffer); err != nil {
		return fmt.Errorf("SO_SNDBUF: %w", err)
	}
	if cfg.SendOnly {
		cfg.NoGRO = true
		if err := c.discard(); err != nil {
			return fmt.Errorf("SO_ATTACH_FILTER: %w", err)
		}
	} else {
		if c.receive, err = c.setBuffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.Buffer); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
		if err := c.setsockopt(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
			return fmt.Errorf("SO_RXQ_OVFL: %w", err)
		}
	}
	c.features = c.probe(cfg)
	return nil
}

// setBuffer sets a buffer's size and returns the size it has, in bytes of
// packets: half of what the kernel says, which counts its own overhead. With
// CAP_NET_ADMIN the size may exceed net.core.rmem_max and wmem_max.
func (c *Conn) setBuffer(force, plain, size int) (int, error) {
	if size > 0 && c.setsockopt(unix.SOL_SOCKET, force, size) != nil {
		if err := c.setsockopt(unix.SOL_SOCKET, plain, size); err != nil {
			return 0, err
		}
	}
	n, err := c.getsockopt(unix.SOL_SOCKET, plain)
	return n / 2, err
}

// discard attaches a filter that accepts no byte of any packet.
func (c *Conn) discard() error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	return c.control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
}

// SetMark sets the mark of what is sent (SO_MARK, socket(7)).
func (c *Conn) SetMark(mark uint32) error {
	return c.setsockopt(unix.SOL_SOCKET, unix.SO_MARK, int(mark))
}

func (c *Conn) setsockopt(level, name, value int) error {
	return c.control(func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) })
}

func (c *Conn) getsockopt(level, name int) (n int, err error) {
	err = c.control(func(fd int) (err error) {
		n, err = unix.GetsockoptInt(fd, level, name)
		return err
	})
	return n, err
}

// control runs f with the descriptor, which stays open meanwhile.
func (c *Conn) control(f func(fd int) error) error {
	var ferr error
	if err := c.raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Send sends one datagram, for callers that do not have many: a Sender has its
// queue for those. It waits while the send buffer is full.
func (c *Conn) Send(b []byte, to netip.AddrPort) error {
	if c.only != nil {
		return c.only.send(c, b, to)
	}
	_, err := c.udp.WriteToUDPAddrPort(b, to)
	return err
}

// LocalAddr is the address and port that the socket has.
func (c *Conn) LocalAddr() netip.AddrPort {
	if c.only != nil {
		return c.only.local
	}
	a := c.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Buffers returns the sizes in bytes that the receive and send buffers really
// have, which may be less than what was asked for.
func (c *Conn) Buffers() (receive, send int) { return c.receive, c.send }

// Drops is how many messages the kernel has dropped because the receive buffer
// was full (SO_RXQ_OVFL). It counts one for all the datagrams that it would have
// delivered together, and is told with the next message that gets through.
func (c *Conn) Drops() uint64 { return c.drops.Load() }

// Wake makes pending and later calls of Senders and Receivers return
// os.ErrDeadlineExceeded. The socket stays open.
func (c *Conn) Wake() error {
	if c.only != nil {
		c.only.woken.Store(true)
		return nil
	}
	return c.udp.SetDeadline(time.Unix(1, 0))
}

// Close makes pending and later calls return net.ErrClosed. A second call does
// nothing.
func (c *Conn) Close() error {
	if c.only != nil {
		return c.only.close()
	}
	if err := c.udp.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
