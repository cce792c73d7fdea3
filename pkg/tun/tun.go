// Package tun opens a Linux TUN device whose packets carry a virtio_net_hdr: one
// system call moves up to 64 KiB of a flow in either direction.
//
//	           read:  TCP/UDP super-packet, checksum not computed yet
//	kernel ◄──────────────────────────────────────────────────────► Queue
//	           write: super-packet, which the kernel treats as its own GSO
//
// A device has one or more queues (IFF_MULTI_QUEUE). The kernel reads a flow's
// queue from where its answers were last written (tun_automq_select_queue,
// drivers/net/tun.c). It hashes a new flow.
package tun

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/tun/virtio"
)

const clonePath = "/dev/net/tun"

// MaxRead is the most bytes that a read returns: a vnet header and the largest
// IPv6 packet that is no jumbogram. A smaller buffer cuts super-packets silently.
const MaxRead = virtio.HdrLen + 40 + 65535

// Config describes the device to open.
type Config struct {
	// Name is the device's name, or a pattern such as "flannel%d": the kernel
	// takes the first free number. Empty means "tun%d".
	Name string
	// Queues is the number of queues; 0 means 1.
	Queues int
	// Persistent keeps the device when the last queue is closed.
	Persistent bool
	// Made, if not nil, is called with the device's name before it becomes
	// persistent. An error leaves no new device.
	Made func(name string) error
}

// Device is a TUN device and its queues.
type Device struct {
	name     string
	features Features
	queues   []*Queue
}

// Open creates the device, or attaches to a persistent one of that name, in the
// network namespace of the calling thread. It needs CAP_NET_ADMIN and
// /dev/net/tun. A new device is down and has no addresses. Users other than the
// present one cannot attach to it.
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
			// A persistent device keeps the owner and the length that an earlier
			// process set.
			if err := setOwner(fd); err != nil {
				return nil, errors.Join(fmt.Errorf("set up TUN %q: %w", name, err), unix.Close(fd))
			}
			if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, virtio.HdrLen); err != nil {
				return nil, errors.Join(fmt.Errorf("set up TUN %q: TUNSETVNETHDRSZ: %w", name, err), unix.Close(fd))
			}
			d.name, d.features = name, setOffloads(fd)
		}
		q, err := newQueue(fd, name)
		if err != nil {
			return nil, fmt.Errorf("open queue %d of TUN %q: %w", i, name, err)
		}
		d.queues = append(d.queues, q)
	}
	if cfg.Made != nil {
		if err := cfg.Made(d.name); err != nil {
			return nil, fmt.Errorf("set up TUN %q: %w", d.name, err)
		}
	}
	// This comes last, so that a failure above leaves no device.
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

// setPersistent sets TUNSETPERSIST: the device outlives its queues.
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

// Name returns the name that the kernel chose.
func (d *Device) Name() string { return d.name }

// Features returns which offloads are on.
func (d *Device) Features() Features { return d.features }

// Queues returns the device's queues.
func (d *Device) Queues() []*Queue { return d.queues }

// Wake makes pending and later reads from all queues return os.ErrDeadlineExceeded.
// Packets that were read before can still be answered. The device stays.
func (d *Device) Wake() error { return d.setReadDeadline(time.Unix(1, 0)) }

// Resume undoes Wake: later reads wait again.
func (d *Device) Resume() error { return d.setReadDeadline(time.Time{}) }

func (d *Device) setReadDeadline(t time.Time) error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.file.SetReadDeadline(t))
	}
	return errors.Join(errs...)
}

// Close makes pending and later calls on all queues return os.ErrClosed, and
// waits until none uses a descriptor. A device that is not persistent is gone
// then. A second call does nothing.
func (d *Device) Close() error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.close())
	}
	return errors.Join(errs...)
}
