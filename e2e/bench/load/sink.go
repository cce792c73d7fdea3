package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	// sinkBatch is how many packets one system call receives.
	sinkBatch = 64
	// sinkBuffer is the size of the socket buffer, in bytes. The kernel charges some
	// 800 bytes for a small packet, so it holds about 10,000.
	sinkBuffer = 8 << 20
	// drainPause without a packet is the end of the packets.
	drainPause = 100 * time.Millisecond
)

// sink counts the packets at a UDP port. close ends its goroutine.
type sink struct {
	conn  net.PacketConn
	count atomic.Uint64
	done  chan error // receives the goroutine's error
}

func openSink(ctx context.Context, at End) (*sink, error) {
	conn, err := at.ListenPacket(ctx, "udp", netip.AddrPortFrom(at.Addr, loadPort).String())
	if err != nil {
		return nil, fmt.Errorf("open sink: %w", err)
	}
	if err := forceBuffer(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open sink: set receive buffer: %w", err)
	}
	s := &sink{conn: conn, done: make(chan error, 1)}
	go func() { s.done <- s.run() }()
	return s, nil
}

// forceBuffer exceeds net.core.rmem_max, as root may (socket(7)).
func forceBuffer(conn net.PacketConn) error {
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sinkBuffer)
	})
	return errors.Join(err, failed)
}

func (s *sink) run() error {
	messages := make([]ipv4.Message, sinkBatch)
	// The kernel truncates the payload, which is not read.
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 1)}
	}
	conn := ipv4.NewPacketConn(s.conn) // recvmmsg(2) is the same for IPv6
	for {
		n, err := conn.ReadBatch(messages, 0)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("count packets: %w", err)
		}
		s.count.Add(uint64(n))
	}
}

// drain waits for the end of the packets, and returns their number.
func (s *sink) drain(ctx context.Context) (uint64, error) {
	for before := s.count.Load(); ; {
		wait := time.NewTimer(drainPause)
		select {
		case <-wait.C:
		case err := <-s.done:
			wait.Stop()
			s.done <- err // for close
			return 0, err
		case <-ctx.Done():
			wait.Stop()
			return 0, ctx.Err()
		}
		now := s.count.Load()
		if now == before {
			return now, nil
		}
		before = now
	}
}

func (s *sink) close() {
	s.conn.Close()
	<-s.done
}
