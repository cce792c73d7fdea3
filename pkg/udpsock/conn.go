package udpsock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// Conn is an unconnected UDP socket that receives and sends. Its methods are
// safe for concurrent use. A Sender and a Receiver may use it at the same time.
type Conn struct {
	socket
	udp   *net.UDPConn
	drops atomic.Uint64
	ovfl  uint32 // the last SO_RXQ_OVFL; the Receiver's
}

// Listen opens n sockets that share one local address and port. The kernel
// spreads flows over them by a hash of addresses and ports (SO_REUSEPORT,
// socket(7)). It fails with EADDRINUSE if another socket has the port.
func Listen(cfg Config, n int) (_ []*Conn, err error) {
	// This bind is without SO_REUSEPORT, so that it fails if another process has the
	// port.
	first, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	conns := []*Conn{first}
	if n == 1 {
		return conns, nil
	}
	defer func() {
		if err != nil {
			for _, c := range conns {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	cfg.Local = first.LocalAddr()
	// The first socket admits the others.
	if err := first.setsockopt(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return nil, fmt.Errorf("share port %v: %w", cfg.Local, err)
	}
	for len(conns) < n {
		c, err := open(cfg, 1)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// Open opens one socket.
func Open(cfg Config) (*Conn, error) { return open(cfg, 0) }

// open opens a socket with SO_REUSEPORT or without. net.ListenConfig would do, but
// takes a context for a bind that does not wait.
func open(cfg Config, reuse int) (*Conn, error) {
	fd, err := unix.Socket(inet.Of(cfg.Local.Addr()).AF(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "udp")
	defer f.Close() // FilePacketConn duplicates it
	if err := errors.Join(
		os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, reuse)),
		cfg.bind(fd),
	); err != nil {
		return nil, fmt.Errorf("listen on udp %v: %w", cfg.Local, err)
	}
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("listen on udp %v: %w", cfg.Local, err)
	}
	return newConn(pc.(*net.UDPConn), cfg)
}

// newConn takes over udp, also if it fails.
func newConn(udp *net.UDPConn, cfg Config) (_ *Conn, err error) {
	c := &Conn{udp: udp, socket: socket{family: inet.Of(cfg.Local.Addr())}}
	if c.raw, err = udp.SyscallConn(); err == nil {
		err = c.setOptions(cfg)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up udp socket %v: %w", cfg.Local, err), udp.Close())
	}
	return c, nil
}

func (c *Conn) setOptions(cfg Config) error {
	packetInfo, level, name := 0, unix.IPPROTO_IP, unix.IP_PKTINFO
	if cfg.PacketInfo {
		packetInfo = 1
	}
	if c.family == inet.IPv6 {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	err := errors.Join(
		c.setSendOptions(cfg),
		os.NewSyscallError("setsockopt IP_PKTINFO", c.setsockopt(level, name, packetInfo)),
		c.setBuffer(receiveBuffer, cfg.Buffer),
		os.NewSyscallError("setsockopt SO_RXQ_OVFL", c.setsockopt(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)),
	)
	if !cfg.NoGRO {
		c.features.GRO = c.setsockopt(unix.SOL_UDP, unix.UDP_GRO, 1)
	}
	return err
}

// write leaves the wait for room to the runtime's poller.
func (c *Conn) write(do func(fd uintptr) bool) error { return c.raw.Write(do) }

func (c *Conn) awaitRoom(uintptr) bool { return false }

// Send sends one datagram. It waits while the send buffer is full. For many
// datagrams use a Sender.
func (c *Conn) Send(b []byte, to netip.AddrPort) error {
	_, err := c.udp.WriteToUDPAddrPort(b, to)
	return err
}

// LocalAddr returns the socket's address and port.
func (c *Conn) LocalAddr() netip.AddrPort {
	a := c.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// AcceptZeroChecksum makes a socket of IPv6 receive datagrams without a checksum, which
// the kernel drops otherwise (RFC 8200, section 8.1; RFC 6935 permits them in tunnels).
func (c *Conn) AcceptZeroChecksum() error {
	return os.NewSyscallError("setsockopt UDP_NO_CHECK6_RX", c.setsockopt(unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1))
}

// SyscallConn gives access to the descriptor, for socket options.
func (c *Conn) SyscallConn() syscall.RawConn { return c.raw }

// Drops returns how many messages the kernel has dropped for lack of room in the
// receive buffer (SO_RXQ_OVFL). Datagrams that GRO joined count as one. A drop
// counts from the next received message on.
func (c *Conn) Drops() uint64 { return c.drops.Load() }

// sendGrace is how long sends succeed after Wake: what was received before leaves
// then, and a send buffer that stays full does not hold its sender up.
const sendGrace = 100 * time.Millisecond

// Wake makes pending and later calls of Receivers return os.ErrDeadlineExceeded,
// and those of Senders after sendGrace. The socket stays open.
func (c *Conn) Wake() error {
	return errors.Join(c.udp.SetReadDeadline(time.Unix(1, 0)), c.udp.SetWriteDeadline(time.Now().Add(sendGrace)))
}

// Resume undoes Wake: later calls wait again.
func (c *Conn) Resume() error { return c.udp.SetDeadline(time.Time{}) }

// Close makes pending and later calls return net.ErrClosed. A second call does
// nothing.
func (c *Conn) Close() error {
	if err := c.udp.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
