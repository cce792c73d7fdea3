package tun

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/tun/virtio"
)

// setOwner makes the device this process's user's. Without an owner
// any local user may attach a queue to a device with IFF_MULTI_QUEUE, as
// /dev/net/tun has mode 0666: read packets from it, write packets to it, and
// change its settings (tun_not_capable, drivers/net/tun.c). A process with
// CAP_NET_ADMIN still may.
func setOwner(fd int) error {
	if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, os.Geteuid()); err != nil { // promise: device-has-an-owner
		return fmt.Errorf("TUNSETOWNER: %w", err)
	}
	return nil
}

// ErrHeader: another process has changed the size of the header in front of
// each packet, so that packets are misread.
var ErrHeader = errors.New("the vnet header has another size")

// CheckHeader returns ErrHeader, or an error of the kernel.
func (d *Device) CheckHeader() error {
	return d.queues[0].control(func(fd int) error {
		size, err := unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ)
		if err != nil {
			return fmt.Errorf("TUNGETVNETHDRSZ of %q: %w", d.name, err)
		}
		if size != virtio.HdrLen {
			return fmt.Errorf("TUN %q: %w: %d bytes, want %d", d.name, ErrHeader, size, virtio.HdrLen)
		}
		return nil
	})
}

// ResetHeader makes the header virtio.HdrLen long.
func (d *Device) ResetHeader() error {
	return d.queues[0].control(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, virtio.HdrLen); err != nil {
			return fmt.Errorf("TUNSETVNETHDRSZ of %q: %w", d.name, err)
		}
		return nil
	})
}
