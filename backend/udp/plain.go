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
	socket  *udpsock.Conn
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
	cfg := udpsock.Config{Local: p.local, Device: p.Uplink.VRF, Buffer: socketBuffer, NoSegment: true, NoGRO: true, PacketInfo: true}
	if d.socket, err = udpsock.Open(cfg); err != nil {
		return nil, explainListen(err)
	}
	return d, nil
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

func (d *plain) detail() string { return "a packet per system call" }

func (d *plain) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(d.out)
	g.Go(d.in)
	g.Go(func() error {
		<-ctx.Done()
		return d.wake()
	})
	return g.Wait()
}

// wake ends out and in.
func (d *plain) wake() error {
	return errors.Join(d.device.SetDeadline(time.Unix(1, 0)), d.socket.Wake())
}

func (d *plain) close() error {
	var errs []error
	if d.device != nil {
		errs = append(errs, d.device.Close())
	}
	if d.socket != nil {
		errs = append(errs, d.socket.Close())
	}
	return errors.Join(errs...)
}

// out moves packets from the device to the peers until wake.
func (d *plain) out() error {
	buf := make([]byte, maxPacket)
	errs := newICMPErrors(d.Network, d.own)
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

func (d *plain) send(p ipv4Packet, errs *icmpErrors, fragments *fragmenter) {
	if !p.wellFormed() {
		d.drops.add(malformed) // usually IPv6 from the host's own stack
		return
	}
	peer := d.table.lookup(p.destination())
	if peer == nil {
		d.drops.add(noRoute)
		d.answer(errs.unreachable(p, codeNetUnreachable, 0))
		return
	}
	err := d.socket.Send(p, peer.addr)
	if errors.Is(err, unix.EMSGSIZE) {
		mtu := d.mtus.to(peer.addr, d.Uplink.MTU) - encapsulation
		if p.dontFragment() {
			d.drops.add(tooBig)
			d.answer(errs.unreachable(p, codeFragNeeded, mtu))
			return
		}
		err = fragments.send(d.socket, p, mtu, peer)
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

// in moves packets from the peers to the device until wake.
func (d *plain) in() error {
	receiver := udpsock.NewReceiver(d.socket, 1)
	for {
		_, err := receiver.Receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("receive on udp port %d: %w", d.local.Port(), err)
		}
		m := receiver.Message(0)
		d.drops[receiveOverflow].Store(d.socket.Drops())
		p := ipv4Packet(m.Data)
		peer, why := d.table.admit(m.From, m.Interface, p)
		if why != admitted {
			d.drops.add(why)
			continue
		}
		if _, err := d.device.Write(p); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			d.drops.add(deviceWriteError)
			continue
		}
		peer.traffic.rx.add(1, len(p))
	}
}
