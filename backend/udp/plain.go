package udp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/songgao/water"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/tun"
	"github.com/coreos/flannel/pkg/udpsock"
)

// plain is the data path that works on any kernel: a packet is one read, one
// look-up and one send. Each direction has a goroutine, which owns its buffers.
//
//	out: device ─read─► look up peer ─────► send, one datagram a packet
//	in:  receive ─────► check source ─write─► device
type plain struct {
	*pathConfig
	device  *os.File
	devName string
	sockets [2]*udpsock.Conn // by the datagrams' family; nil: none
}

// openPlain opens the device and the socket. No packet moves before run.
func openPlain(_ context.Context, p *pathConfig) (_ dataPath, err error) {
	d := &plain{pathConfig: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.device, d.devName, err = openWater(); err != nil {
		return nil, err
	}
	if err := d.openSockets(); err != nil {
		return nil, err
	}
	return d, nil
}

// openSockets opens the sockets that are not open yet. The caller closes them after an
// error.
func (d *plain) openSockets() (err error) {
	for _, f := range d.outer {
		if d.sockets[f] != nil {
			continue
		}
		cfg := udpsock.Config{Local: d.locals[f], Device: d.Of(f).Uplink.VRF, Buffer: socketBuffer, NoSegment: true, NoGRO: true, PacketInfo: true}
		if d.sockets[f], err = udpsock.Open(cfg); err != nil {
			return explainListen(err)
		}
	}
	return nil
}

func openWater() (*os.File, string, error) {
	device, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: netdev.TUNPattern},
	})
	if err != nil {
		return nil, "", tun.Explain(err)
	}
	f, ok := device.ReadWriteCloser.(*os.File)
	if !ok {
		return nil, "", fmt.Errorf("open tunnel device: got a %T, want a file", device.ReadWriteCloser)
	}
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { unix.CloseOnExec(int(fd)) })
	}
	if err != nil {
		return nil, "", fmt.Errorf("set close-on-exec on tunnel device: %w", errors.Join(err, f.Close()))
	}
	return f, device.Name(), nil
}

func (d *plain) deviceName() string { return d.devName }

func (d *plain) detail() string {
	s := "a packet per system call"
	for _, f := range d.outer {
		if why := d.sockets[f].Features().Buffers; why != nil {
			return fmt.Sprintf("%s; %v", s, why)
		}
	}
	return s
}

func (d *plain) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(d.out)
	for _, f := range d.outer {
		g.Go(func() error { return d.in(d.sockets[f]) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return d.wake()
	})
	return g.Wait()
}

// wake ends out and in.
func (d *plain) wake() error {
	errs := []error{d.device.SetReadDeadline(time.Unix(1, 0))}
	for _, f := range d.outer {
		errs = append(errs, d.sockets[f].Wake())
	}
	return errors.Join(errs...)
}

func (d *plain) close() error {
	var errs []error
	if d.device != nil {
		errs = append(errs, d.device.Close())
	}
	for _, s := range d.sockets {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// out moves packets from the device to the peers until wake.
func (d *plain) out() error {
	buf := make([]byte, maxPacket)
	errs := newICMPErrors(d.pathConfig)
	fragments := new(fragmenter)
	for {
		n, err := d.device.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("read from %s: %w", d.devName, err)
		}
		d.send(buf[:n], errs, fragments)
	}
}

func (d *plain) send(p packet, errs [2]*icmpErrors, fragments *fragmenter) {
	if !p.wellFormed() || errs[p.family()] == nil {
		d.drops.add(malformed) // usually IPv6 from the host's own stack
		return
	}
	f := p.family()
	peer := d.table.lookup(f, p.destination())
	if peer == nil {
		d.drops.add(noRoute)
		d.answer(errs[f].noRoute(p))
		return
	}
	socket := d.sockets[peer.outer]
	err := socket.Send(p, peer.addr)
	if errors.Is(err, unix.EMSGSIZE) {
		mtu := d.mtuTo(peer)
		if p.dontFragment() {
			d.drops.add(tooBig)
			d.answer(errs[f].tooBig(p, mtu))
			return
		}
		err = fragments.send(socket, p, mtu, peer)
	} else if err == nil {
		peer.traffic.tx.add(1, len(p))
	}
	if err != nil {
		d.drops.add(sendError)
	}
}

// answer writes an ICMP error to the device, as if a peer had sent it.
func (d *plain) answer(message []byte) {
	if message == nil {
		return
	}
	if _, err := d.device.Write(message); err != nil {
		d.drops.add(deviceWriteError)
	}
}

// in moves packets from a socket to the device until wake.
func (d *plain) in(socket *udpsock.Conn) error {
	receiver := udpsock.NewReceiver(socket, 1)
	overflow := uint64(0) // the part of the socket's Drops that is counted already
	for {
		_, err := receiver.Receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("receive on udp port %d: %w", d.port, err)
		}
		m := receiver.Message(0)
		if dropped := socket.Drops(); dropped != overflow {
			d.drops.addAll(receiveOverflow, int(dropped-overflow))
			overflow = dropped
		}
		p := packet(m.Data)
		peer, why := d.table.admit(m.From, m.Interface, p)
		if why != admitted {
			d.drops.add(why)
			continue
		}
		if _, err := d.device.Write(p); err != nil {
			d.drops.add(deviceWriteError)
			continue
		}
		peer.traffic.rx.add(1, len(p))
	}
}
