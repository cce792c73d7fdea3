package offloadprobe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/udpsock"
)

// tcpProbe sends a shape over a connection of its own and waits for the receipt. TCP
// replaces a lost super-packet by single segments. So a receipt alone proves nothing: the
// probe has passed if no segment was sent again for a loss.
type tcpProbe struct {
	local netip.Addr
	port  uint16 // of this host, from the SYN on
	to    netip.AddrPort
	head  header
	// wait is the time for the connection, and then for the receipt.
	wait time.Duration
	dial func(ctx context.Context, d *net.Dialer, to string) (net.Conn, error)
}

// errUnanswered means that the SYN of a connection has no answer.
var errUnanswered = errors.New("the peer does not answer")

// run returns the receipt. lost is true if segments were lost, or the receipt is.
func (p *tcpProbe) run(ctx context.Context) (receipt header, lost bool, err error) {
	dialer := &net.Dialer{Timeout: p.wait, Control: p.bind}
	c, err := p.dial(ctx, dialer, p.to.String())
	if failure := net.Error(nil); errors.As(err, &failure) && failure.Timeout() {
		return header{}, false, fmt.Errorf("%w: %w", errUnanswered, err)
	}
	if err != nil {
		return header{}, false, err
	}
	conn := c.(*net.TCPConn)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	before, err := tcpInfo(conn)
	if err != nil {
		return header{}, false, err
	}
	// A reset ends the connection with one packet, which also acknowledges the receipt.
	// NODELAY is Go's default.
	err = errors.Join(conn.SetLinger(0), conn.SetDeadline(time.Now().Add(p.wait)), delayAcknowledgements(conn))
	if err != nil {
		return header{}, false, fmt.Errorf("prepare TCP probe: %w", err)
	}
	lengths := forms[p.head.shape].writes(int(before.Snd_mss))
	total := 0
	for _, n := range lengths {
		total += n
	}
	p.head.length = uint32(total)
	message := p.head.message(total)
	for _, n := range lengths {
		if _, err := conn.Write(message[:n]); err != nil {
			return header{}, true, nil // the deadline, or a reset
		}
		message = message[n:]
	}
	var b [headerLen]byte
	_, failed := io.ReadFull(conn, b[:])
	if failed == nil {
		failed = receipt.parse(b[:])
	}
	if failed != nil || receipt.kind != kindReceipt || receipt.token != p.head.token {
		return header{}, true, nil
	}
	lost, err = p.lostSegments(ctx, conn, before)
	return receipt, lost, err
}

// lostSegments reports whether segments were lost since before. After reordering, TCP may
// send a segment again that has arrived. That is no loss: the peer reports a duplicate
// (RFC 2883).
func (p *tcpProbe) lostSegments(ctx context.Context, conn *net.TCPConn, before *unix.TCPInfo) (bool, error) {
	lost := func() (bool, error) {
		now, err := tcpInfo(conn)
		if err != nil {
			return false, err
		}
		return now.Total_retrans-before.Total_retrans > now.Dsack_dups-before.Dsack_dups, nil
	}
	seen, err := lost()
	if err != nil || !seen {
		return false, err
	}
	select { // the report of a duplicate may be under way
	case <-time.After(p.wait / 2):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return lost()
}

// bind chooses the port. Go does not report that of a connection that fails.
func (p *tcpProbe) bind(_, _ string, raw syscall.RawConn) error {
	return control(raw, func(fd int) error {
		if err := unix.Bind(fd, udpsock.Sockaddr(netip.AddrPortFrom(p.local, 0))); err != nil {
			return os.NewSyscallError("bind", err)
		}
		name, err := unix.Getsockname(fd)
		switch name := name.(type) {
		case *unix.SockaddrInet4:
			p.port = uint16(name.Port)
		case *unix.SockaddrInet6:
			p.port = uint16(name.Port)
		}
		return os.NewSyscallError("getsockname", err)
	})
}

func tcpInfo(conn *net.TCPConn) (info *unix.TCPInfo, err error) {
	err = withDescriptor(conn, func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		return os.NewSyscallError("getsockopt TCP_INFO", err)
	})
	return info, err
}

// delayAcknowledgements has the kernel wait for a packet that carries the next
// acknowledgement (TCP_QUICKACK, tcp(7)).
func delayAcknowledgements(conn *net.TCPConn) error {
	return withDescriptor(conn, func(fd int) error {
		return os.NewSyscallError("setsockopt TCP_QUICKACK", unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_QUICKACK, 0))
	})
}

func withDescriptor(conn *net.TCPConn, do func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, do)
}
