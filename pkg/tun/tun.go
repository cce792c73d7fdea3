// Package tun is a Linux TUN device whose packets carry a virtio_net_hdr, so
// that one system call moves up to 64 KiB of a flow in either direction.
//
//	           read:  TCP/UDP super-packet, checksum still to do
//	kernel ◄──────────────────────────────────────────────────────► Queue
//	           write: super-packet, which the kernel treats as its own GSO
//
// A device has one or more queues (IFF_MULTI_QUEUE). The kernel keeps a flow on
// the queue that the flow's answers were last written to (tun_automq_select_queue,
// drivers/net/tun.c), and hashes those that it has not seen.
package tun

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const clonePath = "/dev/net/tun"

// MaxRead is the most bytes that a read can return: a vnet header, and a packet
// with the largest total length that IPv4 can state. A smaller buffer cuts
// super-packets silently.
const MaxRead = VnetHdrLen + 65535

// Config says what device to open.
type Config struct {
	// Name is the device's name, or a pattern such as "flannel%d" of which the
	// kernel picks the first free one. Empty means "tun%d".
	Name string
	// Queues is the number of queues; 0 means 1.
	Queues int
	// NoOffloads asks for whole packets with finished checksums only. The
	// vnet header stays.
	NoOffloads bool
	// Persistent keeps the device when the last queue is closed.
	Persistent bool
}

// Device is a TUN and its queues.
type Device struct {
	name     string
	features Features
	queues   []*Queue
}

// Open makes the device, or attaches to a persistent one of that name, in the
// network namespace of the calling thread. It needs CAP_NET_ADMIN and
// /dev/net/tun. The device comes without addresses and is down.
func Open(cfg Config) (_ *Device, err error) {
	d := &Device{name: cfg.Name}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	for i := range max(cfg.Queues, 1) {
		// The later queues attach by the name that the first one was given.
		fd, name, err := openQueue(d.name)
		if err != nil {
			return nil, fmt.Errorf("open queue %d of TUN %q: %w", i, cfg.Name, err)
		}
		if i == 0 {
			// A persistent device keeps what an earlier owner set.
			if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, VnetHdrLen); err != nil {
				return nil, errors.Join(fmt.Errorf("set up TUN %q: TUNSETVNETHDRSZ: %w", name, err), unix.Close(fd))
			}
			d.name, d.features = name, setOffloads(fd, cfg.NoOffloads)
		}
		q, err := newQueue(fd, name)
		if err != nil {
			return nil, fmt.Errorf("open queue %d of TUN %q: %w", i, name, err)
		}
		d.queues = append(d.queues, q)
	}
	// Last, so that a failure above leaves nothing behind.
	if err := d.setPersistent(cfg.Persistent); err != nil {
		return nil, err
	}
	return d, nil
}

// openQueue returns a non-blocking descriptor attached to the device, and the
// device's name.
func openQueue(name string) (fd int, actual string, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, "", err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	fd, err = unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open %s: %w", clonePath, err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return -1, "", errors.Join(fmt.Errorf("TUNSETIFF: %w", err), unix.Close(fd))
	}
	return fd, ifr.Name(), nil
}

// setPersistent sets whether the device outlives its queues.
func (d *Device) setPersistent(on bool) error {
	arg := 0
	if on {
		arg = 1
	}
	return d.queues[0].control(func(fd int) error {
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, arg); err != nil {
			return fmt.Errorf("TUNSETPERSIST of %q: %w", d.name, err)
		}
		return nil
	})
}

// Name is the device's name as the kernel chose it.
func (d *Device) Name() string { return d.name }

// Features says which offloads are on.
func (d *Device) Features() Features { return d.features }

// Queues returns the device's queues.
func (d *Device) Queues() []*Queue { return d.queues }

// Wake makes pending and later calls on all queues return os.ErrDeadlineExceeded.
// The device stays.
func (d *Device) Wake() error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.file.SetDeadline(time.Unix(1, 0)))
	}
	return errors.Join(errs...)
}

// Close makes pending and later calls on all queues return os.ErrClosed, and
// waits until none uses a descriptor. The device is gone afterwards, unless it
// is persistent. A second call does nothing.
func (d *Device) Close() error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.close())
	}
	return errors.Join(errs...)
}
