package tun

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
)

// CheckAccess returns an error with the remedy if this process cannot open
// /dev/net/tun. It makes no device, and so needs no capability.
func CheckAccess() error {
	if err := openClone(); err != nil {
		return Explain(err)
	}
	return nil
}

// openClone opens /dev/net/tun and closes it.
func openClone() error {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", clonePath, err)
	}
	return unix.Close(fd)
}

// Explain adds the remedy to the usual failures to make a TUN device.
func Explain(err error) error { return explain(err, openClone) }

// explain calls open to find out which step was refused. The kernel returns EPERM
// for an open that the device cgroup forbids (devcgroup_check_permission in
// security/device_cgroup.c) and for a device that a process without CAP_NET_ADMIN
// makes (tun_set_iff in drivers/net/tun.c).
func explain(err error, open func() error) error {
	const what = "open tunnel device /dev/net/tun"
	switch {
	case errors.Is(err, os.ErrPermission):
		opened := open()
		remedy := netdev.NeedsNetAdmin
		if errors.Is(opened, unix.EPERM) {
			remedy = "the device cgroup of this container or unit forbids the device, whatever the capabilities: --device=/dev/net/tun (docker), DeviceAllow=/dev/net/tun rw (systemd), or a privileged container (Kubernetes)"
		}
		if errors.Is(opened, unix.EACCES) {
			remedy = "the file's mode or owner keeps this user out: run the daemon as root, or chmod 0666 /dev/net/tun"
		}
		return fmt.Errorf("%s: %w; %s", what, err, remedy)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s: %w; load the kernel module with \"modprobe tun\", or pass the device in with --device=/dev/net/tun (docker)", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
