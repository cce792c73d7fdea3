package udp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/tun"
	"github.com/coreos/flannel/pkg/udpsock"
)

const (
	// maxQueues bounds the queues of the device, and with them goroutines.
	maxQueues = 4
	// lanes is how many source ports each queue sends from. A receiver's network
	// card and sockets spread load by a hash over addresses and ports, of which
	// the source port is all that can differ.
	lanes = 8
)

// offloaded is the data path that moves up to 64 KiB of a flow per system call:
//
//	out[i]: queue i ─read: super-packet─► look up peer ─► split ─► one send for all segments
//	in[i]:  socket i ─receive: many datagrams─► check each ─► merge ─write: super-packet─► queue i
//
// Each goroutine owns its side of a queue and all its scratch; they share
// nothing but the table and the counters. The kernel keeps a flow on one queue,
// and a hash of the flow decides about its source port, so that the packets of
// a flow stay in order.
//
// A super-packet of 64 KiB with its segments' headers is more than a datagram
// holds, so that it takes two sends, of 44 segments and 2 at an MTU of 1472. A
// lower gso_max_size of the device would avoid the second, but only for what
// the host itself sends: a container's TCP goes by its own device's limit, and
// the kernel cuts packets above ours down to single segments (gso_features_check,
// net/core/dev.c), which costs far more than the second send.
type offloaded struct {
	*pathConfig
	device *tun.Device
	// receiving are the sockets at our port, one for each queue.
	receiving []*udpsock.Conn
	// sending are the sockets of each queue's lanes.
	sending [][]*udpsock.Conn
	// writeRefused is why the kernel did not take a super-packet that is like
	// the one it took in the probe. Once it is set, nothing is merged.
	writeRefused atomic.Pointer[error]
}

// openOffloaded opens the path with a queue for each processor, up to a limit.
// Its error is final unless the kernel lacks something: whatever else is in the
// way, such as a port in use, is in plain's way too.
func openOffloaded(ctx context.Context, p *pathConfig) (dataPath, error) {
	d, err := openQueues(ctx, p, min(runtime.GOMAXPROCS(0), maxQueues))
	switch {
	case err == nil:
		return d, nil
	case errors.Is(unsupported(err), errors.ErrUnsupported):
		return nil, err
	}
	return nil, &finalError{err}
}

// finalError is an error that no other data path would be spared.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// unsupported makes an ErrUnsupported of what kernels say of flags and options
// that they do not know. Errno matches ENOSYS and EOPNOTSUPP by itself.
func unsupported(err error) error {
	for _, errno := range []syscall.Errno{unix.EINVAL, unix.ENOTTY, unix.ENOPROTOOPT} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
	}
	return err
}

// openQueues makes the device and the sockets. It fails with ErrUnsupported
// where the kernel does not hand over super-packets, for then nothing is gained
// over plain.
func openQueues(ctx context.Context, p *pathConfig, queues int) (_ *offloaded, err error) {
	d := &offloaded{pathConfig: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.device, err = tun.Open(tun.Config{Name: cmp.Or(p.device.name, netdev.TUNPattern), Queues: queues, Persistent: p.device.on}); err != nil {
		return nil, explainTUN(err)
	}
	if f := d.device.Features(); f.Checksum != nil || f.TSO4 != nil {
		return nil, fmt.Errorf("kernel without TUN offloads: %w: %w", errors.ErrUnsupported, cmp.Or(f.Checksum, f.TSO4))
	}
	cfg := udpsock.Config{Local: p.local, Buffer: socketBuffer}
	if d.receiving, err = udpsock.Listen(ctx, cfg, queues); err != nil {
		return nil, explainListen(err)
	}
	anyPort := netip.AddrPortFrom(p.local.Addr(), 0)
	cfg = udpsock.Config{Local: anyPort, Buffer: socketBuffer, SendOnly: true}
	d.sending = make([][]*udpsock.Conn, queues)
	for i := range queues * lanes {
		c, err := udpsock.Listen(ctx, cfg, 1)
		if err != nil {
			return nil, err
		}
		d.sending[i/lanes] = append(d.sending[i/lanes], c...)
	}
	return d, nil
}

func (d *offloaded) deviceName() string { return d.device.Name() }

// detail names the offloads that are on, and for the others the reason.
func (d *offloaded) detail() string {
	t, in, out := d.device.Features(), d.receiving[0].Features(), d.sending[0][0].Features()
	if why := d.writeRefused.Load(); why != nil {
		t.WriteTSO, t.WriteUSO = *why, *why
	}
	for _, lane := range slices.Concat(d.sending...) {
		out.Segment = cmp.Or(out.Segment, lane.Features().Segment)
	}
	var on, off []string
	for _, f := range []struct {
		name string
		why  error
	}{
		{"TSO", t.TSO4}, {"USO", t.USO}, {"TSO write", t.WriteTSO}, {"USO write", t.WriteUSO},
		{"UDP_SEGMENT", out.Segment}, {"UDP_GRO", in.GRO},
	} {
		if f.why == nil {
			on = append(on, f.name)
		} else {
			off = append(off, fmt.Sprintf("%s (%v)", f.name, f.why))
		}
	}
	s := "on: " + strings.Join(on, ", ")
	if off != nil {
		s += "; off: " + strings.Join(off, ", ")
	}
	return s
}

func (d *offloaded) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, q := range d.device.Queues() {
		g.Go(newOutQueue(d, q, d.sending[i]).run)
		g.Go(newInQueue(d, q, d.receiving[i]).run)
	}
	g.Go(func() error {
		<-ctx.Done()
		return d.wake()
	})
	return g.Wait()
}

// conns are all sockets that have Wake.
func (d *offloaded) conns() []*udpsock.Conn {
	return append(slices.Concat(d.sending...), d.receiving...)
}

// wake makes all goroutines of run return.
func (d *offloaded) wake() error {
	errs := []error{d.device.Wake()}
	for _, c := range d.conns() {
		errs = append(errs, c.Wake())
	}
	return errors.Join(errs...)
}

func (d *offloaded) close() error {
	var errs []error
	if d.device != nil {
		errs = append(errs, d.device.Close())
	}
	for _, c := range d.conns() {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
