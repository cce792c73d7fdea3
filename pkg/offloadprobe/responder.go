package offloadprobe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

const (
	// maxConnections bounds the TCP probes of a family that are received at once.
	maxConnections = 64
	// connectionLimit bounds the time of one.
	connectionLimit = 5 * time.Second
)

// responder answers the probes of peers. It answers nobody else, and each datagram by
// one that is not longer.
type responder struct {
	// sockets receive the shapes of UDP. Each family has a plain one at port, and a merging
	// one at port + 1. listeners are those of TCP.
	sockets   []*udpSocket
	listeners []*net.TCPListener
	// fault returns the layer of the fault that our probes to an address find. ok is false
	// if no peer has the address. named is the code of the fault that the peer names.
	fault func(from netip.Addr, named byte) (l Layer, ok bool)
	// within is the Prober's.
	within func(func() error) error
}

// open opens the sockets at addresses of this host.
func (r *responder) open(ctx context.Context, locals []netip.AddrPort) error {
	for _, local := range locals {
		if err := r.openAt(ctx, local); err != nil {
			return errors.Join(fmt.Errorf("open socket for offload probes: %w", err), r.close())
		}
	}
	return nil
}

// openAt opens the sockets of one family.
func (r *responder) openAt(ctx context.Context, local netip.AddrPort) error {
	for _, merge := range []bool{false, true} {
		at := local
		if merge {
			at = mergingAddr(local)
		}
		s, err := listenUDP(ctx, at, merge)
		if err != nil {
			return err
		}
		r.sockets = append(r.sockets, s)
	}
	family := inet.Of(local.Addr())
	options := &optionsOf[family]
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error { return options.set(fd, "FREEBIND", options.freebind, 1) })
	}}
	l, err := config.Listen(ctx, network("tcp", family), local.String())
	if err != nil {
		return err
	}
	r.listeners = append(r.listeners, l.(*net.TCPListener))
	return nil
}

// mergingAddr is the address at which a responder lets datagrams be merged.
func mergingAddr(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }

func (r *responder) close() error {
	var errs []error
	for _, s := range r.sockets {
		errs = append(errs, s.close())
	}
	for _, l := range r.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// start has g answer probes until close.
func (r *responder) start(ctx context.Context, g *errgroup.Group) {
	for _, s := range r.sockets {
		g.Go(func() error {
			return receiveAll(s, func(d datagram) { r.answer(s, d) })
		})
	}
	for _, l := range r.listeners {
		g.Go(func() error { return r.accept(ctx, l) })
	}
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

// answer sends the receipt of a datagram without an offload. A fault of the direction back
// must not hide that the datagram has arrived.
func (r *responder) answer(s *udpSocket, d datagram) {
	if receipt, ok := r.receipt(d.data, d.from.Addr()); ok {
		receipt.tos = d.tos
		if receipt.shape == tcpArrival {
			if !r.hasSYN(s, netip.AddrPortFrom(d.from.Addr(), receipt.port)) {
				return
			}
			receipt.index = hasArrived
		}
		var b [headerLen]byte
		receipt.put(b[:])
		_ = s.sendPlain(b[:], d.from, 0) // the probe counts as lost
	}
}

// hasSYN reports whether a SYN has arrived from a peer's port at the port of a socket.
func (r *responder) hasSYN(s *udpSocket, from netip.AddrPort) (arrived bool) {
	err := r.within(func() (err error) {
		arrived, err = hasConnection(s.local, from)
		return err
	})
	if err != nil {
		log.V(1).Infof("answer an offload probe: %v", err)
	}
	return arrived
}

// receipt returns the receipt of a whole probe from an address.
func (r *responder) receipt(message []byte, from netip.Addr) (receipt header, ok bool) {
	if receipt.parse(message) != nil || receipt.kind != kindProbe || !receipt.intact(message) {
		return header{}, false
	}
	layer, ok := r.fault(from, receipt.layer)
	receipt.kind, receipt.layer, receipt.tos = kindReceipt, layer.code(), 0
	return receipt, ok // promise: probe-of-a-peer-is-answered
}

func (r *responder) accept(ctx context.Context, l *net.TCPListener) error {
	var g errgroup.Group
	g.SetLimit(maxConnections)
	for {
		c, err := l.AcceptTCP()
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
	if _, ok := r.fault(from, 0); !ok || c.SetDeadline(time.Now().Add(connectionLimit)) != nil {
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
