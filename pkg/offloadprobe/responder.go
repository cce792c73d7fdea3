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

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// maxConnections bounds the TCP probes that are received at once.
	maxConnections = 64
	// connectionLimit bounds the time of one.
	connectionLimit = 5 * time.Second
)

// responder answers the probes of peers. It answers nobody else, and each datagram by
// one that is not longer.
type responder struct {
	// plain and merging receive the shapes of UDP; port and port + 1 are theirs.
	plain, merging *udpSocket
	tcp            *net.TCPListener
	// fault returns the layer that our probes to an address find. ok is false if no
	// peer has it.
	fault func(from netip.Addr) (l Layer, ok bool)
}

func openResponder(ctx context.Context, local netip.AddrPort, fault func(netip.Addr) (Layer, bool)) (_ *responder, err error) {
	r := &responder{fault: fault}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.plain, err = listenUDP(ctx, local, false); err != nil {
		return nil, err
	}
	if r.merging, err = listenUDP(ctx, mergingAddr(local), true); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = os.NewSyscallError("setsockopt IP_FREEBIND", unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
		}), err)
	}}
	l, err := config.Listen(ctx, "tcp4", local.String())
	if err != nil {
		return nil, fmt.Errorf("open socket for offload probes: %w", err)
	}
	r.tcp = l.(*net.TCPListener)
	return r, nil
}

// mergingAddr is the address at which a responder lets datagrams be merged.
func mergingAddr(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }

func (r *responder) close() error {
	var errs []error
	for _, s := range []*udpSocket{r.plain, r.merging} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	if r.tcp != nil {
		errs = append(errs, r.tcp.Close())
	}
	return errors.Join(errs...)
}

// start has g answer probes until close.
func (r *responder) start(ctx context.Context, g *errgroup.Group) {
	for _, s := range []*udpSocket{r.plain, r.merging} {
		g.Go(func() error {
			return receiveAll(s, func(d datagram) { r.answer(s, d) })
		})
	}
	g.Go(func() error { return r.accept(ctx) })
}

// receiveAll calls take for each datagram until the socket is closed. An ICMP error
// about an earlier datagram is no failure.
func receiveAll(s *udpSocket, take func(datagram)) error {
	buffer, control := make([]byte, maxDatagram), make([]byte, controlLen)
	for {
		err := s.receive(buffer, control, take)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && !isICMP(err):
			return fmt.Errorf("receive offload probes: %w", err)
		}
	}
}

// isICMP reports whether err is an ICMP error that the kernel reports to the socket.
func isICMP(err error) bool {
	for _, e := range []error{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE, unix.EPROTO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// answer sends the receipt of a datagram, plain: a fault of the direction back must
// not hide that the datagram has arrived.
func (r *responder) answer(s *udpSocket, d datagram) {
	if receipt, ok := r.receipt(d.data, d.from.Addr()); ok {
		receipt.tos = d.tos
		var b [headerLen]byte
		receipt.put(b[:])
		_ = s.sendPlain(b[:], d.from, 0) // the probe counts as lost
	}
}

// receipt returns the receipt of a whole probe from an address.
func (r *responder) receipt(message []byte, from netip.Addr) (receipt header, ok bool) {
	if receipt.parse(message) != nil || receipt.kind != kindProbe || !receipt.intact(message[headerLen:]) {
		return header{}, false
	}
	layer, ok := r.fault(from)
	receipt.kind, receipt.layer, receipt.tos = kindReceipt, layer.code(), 0
	return receipt, ok // promise: probe-of-a-peer-is-answered
}

func (r *responder) accept(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(maxConnections)
	for {
		c, err := r.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return g.Wait()
		}
		if err != nil { // of one connection, or for want of descriptors
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		g.Go(func() error {
			r.serve(ctx, c)
			return nil
		})
	}
}

// serve answers the probe of one connection. A failure is a probe without a receipt.
func (r *responder) serve(ctx context.Context, c *net.TCPConn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if _, ok := r.fault(from); !ok || c.SetDeadline(time.Now().Add(connectionLimit)) != nil {
		return
	}
	message := make([]byte, headerLen)
	if _, err := io.ReadFull(c, message); err != nil {
		return
	}
	var h header
	if err := h.parse(message); err != nil || h.length < headerLen || h.length > maxTCP {
		return
	}
	message = append(message, make([]byte, h.length-headerLen)...)
	if _, err := io.ReadFull(c, message[headerLen:]); err != nil {
		return
	}
	receipt, ok := r.receipt(message, from)
	if !ok {
		return
	}
	var b [headerLen]byte
	receipt.put(b[:])
	if _, err := c.Write(b[:]); err != nil {
		return
	}
	_, _ = c.Read(b[:]) // the prober's end: it reads its counters before it closes
}
