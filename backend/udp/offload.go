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

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/tun"
	"github.com/coreos/flannel/pkg/udpsock"
)

const (
	// maxQueues bounds the device's queues, and with them the goroutines.
	maxQueues = 4
	// txPorts is the number of source ports of each queue. A receiver's network
	// card and sockets spread load by a hash over addresses and ports. Between
	// two hosts only the source port can differ.
	txPorts = 8
)

// offloaded is the data path that moves up to 64 KiB of a flow per system call:
//
//	out[i]: queue i ─read: super-packet─► look up peer ─► split ─► one send for all segments
//	in[i]:  socket i ─receive: many datagrams─► check each ─► merge ─write: super-packet─► queue i
//
// Each family of datagrams has sockets of its own. Each goroutine owns its side of a
// queue and its scratch; they share only the table and the counters. The packets of a
// flow stay in order: the kernel keeps a flow on one queue, and a hash of the flow
// selects its source port.
//
// A super-packet of 64 KiB with its segments' headers exceeds a datagram. It takes
// two sends, of 44 segments and 2 at an MTU of 1472. A lower gso_max_size of the
// device would avoid the second only for the host's own packets: a container's
// TCP uses the limit of its own device. The kernel would cut its packets to
// single segments (gso_features_check, net/core/dev.c), which costs more.
type offloaded struct {
	*pathConfig
	device *tun.Device
	// receiving are the sockets at our port, by family, one for each queue.
	receiving [2][]*udpsock.Conn
	// sending are, by family, txPorts sockets for each queue, each with its own source
	// port.
	sending [2][]*udpsock.SendConn
	// writeRefused is the error of a super-packet that the kernel refused although
	// it took the probe's. Then merging ends.
	writeRefused atomic.Pointer[error]
}

// openOffloaded opens the path with a queue for each processor, up to maxQueues.
// Its error is final unless the kernel lacks an offload: other obstacles, such as
// a port in use, would stop plain too.
func openOffloaded(ctx context.Context, p *pathConfig) (dataPath, error) {
	d, err := openQueues(ctx, p, min(runtime.GOMAXPROCS(0), maxQueues))
	switch {
	case err == nil:
		return d, nil
	case unsupported(err):
		return nil, err
	}
	return nil, &finalError{err}
}

// finalError is an error that every other data path would return too.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// unsupported returns true for the errnos of unknown flags and options. ENOSYS and
// EOPNOTSUPP match ErrUnsupported.
func unsupported(err error) bool {
	return slices.ContainsFunc([]error{errors.ErrUnsupported, unix.EINVAL, unix.ENOTTY, unix.ENOPROTOOPT},
		func(target error) bool { return errors.Is(err, target) })
}

// openQueues opens the device and the sockets. It returns ErrUnsupported if the
// device does not read super-packets: the path would gain nothing over plain.
func openQueues(ctx context.Context, p *pathConfig, queues int) (_ *offloaded, err error) {
	d := &offloaded{pathConfig: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	c := tun.Config{Name: cmp.Or(p.device, netdev.TUNPattern), Queues: queues, Persistent: p.device != ""}
	if c.Persistent {
		c.Made = func(name string) error { return markDevice(p.links, name) }
	}
	if d.device, err = tun.Open(c); err != nil {
		return nil, tun.Explain(err)
	}
	if err := setUpQueues(p.links, d.device.Name()); err != nil {
		return nil, err
	}
	if f := d.device.Features(); f.Checksum != nil || f.TSO4 != nil {
		return nil, fmt.Errorf("kernel without TUN offloads: %w: %w", errors.ErrUnsupported, cmp.Or(f.Checksum, f.TSO4))
	}
	if err := d.openSockets(); err != nil {
		return nil, err
	}
	return d, nil
}

// openSockets opens the sockets that are not open yet. The caller closes them after an
// error.
func (d *offloaded) openSockets() error {
	for _, f := range d.outer {
		if d.receiving[f] != nil {
			continue
		}
		if err := d.openSocketsOf(f, len(d.device.Queues())); err != nil {
			return err
		}
	}
	return nil
}

func (d *offloaded) openSocketsOf(f inet.Family, queues int) (err error) {
	cfg := udpsock.Config{Local: d.locals[f], Device: d.Of(f).Uplink.VRF, Buffer: socketBuffer, PacketInfo: true}
	if d.receiving[f], err = udpsock.Listen(cfg, queues); err != nil {
		return explainListen(err)
	}
	cfg.Local = netip.AddrPortFrom(d.locals[f].Addr(), 0)
	for range queues * txPorts {
		c, err := udpsock.OpenSend(cfg)
		if err != nil {
			return err
		}
		d.sending[f] = append(d.sending[f], c)
	}
	return nil
}

func (d *offloaded) deviceName() string { return d.device.Name() }

// detail lists the offloads that are on, and the others with the reason.
func (d *offloaded) detail() string {
	var in, out udpsock.Features
	for _, f := range d.outer {
		for _, c := range d.receiving[f] {
			in.GRO, in.Buffers = cmp.Or(in.GRO, c.Features().GRO), cmp.Or(in.Buffers, c.Features().Buffers)
		}
		for _, c := range d.sending[f] {
			out.Segment = cmp.Or(out.Segment, c.Features().Segment)
		}
	}
	t := d.device.Features()
	read, write := t.TSO4, t.WriteTSO4
	if d.Of(inet.IPv6).Inside() {
		read, write = cmp.Or(read, t.TSO6), cmp.Or(write, t.WriteTSO6)
	}
	if why := d.writeRefused.Load(); why != nil {
		write, t.WriteUSO = *why, *why
	}
	var on, off []string
	for _, f := range []struct {
		name string
		why  error
	}{
		{"TSO", read}, {"USO", t.USO}, {"TSO write", write}, {"USO write", t.WriteUSO},
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
	if in.Buffers != nil {
		s += fmt.Sprintf("; %v", in.Buffers)
	}
	return s
}

func (d *offloaded) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, q := range d.device.Queues() {
		g.Go(newOutQueue(d, q, i).run)
		for _, f := range d.outer {
			g.Go(newInQueue(d, q, d.receiving[f][i]).run)
		}
	}
	g.Go(func() error {
		<-ctx.Done()
		return d.wake()
	})
	return g.Wait()
}

// conn is what udpsock.Conn and udpsock.SendConn have in common here.
type conn interface {
	Wake() error
	Resume() error
	Close() error
}

func (d *offloaded) conns() []conn {
	var all []conn
	for f := range d.sending {
		for _, c := range d.sending[f] {
			all = append(all, c)
		}
		for _, c := range d.receiving[f] {
			all = append(all, c)
		}
	}
	return all
}

// wake ends all goroutines of run.
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
