package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// open makes a ping socket, which needs no privilege where
// net.ipv4.ping_group_range has our group (systemd sets it so), else a raw one,
// which needs CAP_NET_RAW. It is bound to source if this host has that address:
// host-gw makes no device, and the kernel chooses there.
func open(source netip.Addr) (fd int, raw bool, err error) {
	fd, err = openAs(unix.SOCK_DGRAM, source)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPROTONOSUPPORT) {
		raw = true
		fd, err = openAs(unix.SOCK_RAW, source)
		if errors.Is(err, unix.EPERM) {
			return -1, raw, fmt.Errorf("open a socket for pings, which needs CAP_NET_RAW or `sysctl net.ipv4.ping_group_range=\"0 2147483647\"`: %w", err)
		}
	}
	if err != nil {
		return -1, raw, fmt.Errorf("open a socket for pings: %w", err)
	}
	return fd, raw, nil
}

func openAs(kind int, source netip.Addr) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	// PROBE: "don't fragment" is set, and what the kernel has learnt of the
	// path's MTU does not keep a packet back (ip(7)).
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE); err != nil {
		return -1, os.NewSyscallError("setsockopt IP_MTU_DISCOVER", err)
	}
	if kind == unix.SOCK_RAW {
		// include/uapi/linux/icmp.h: ICMP_FILTER is option 1 of SOL_RAW, a mask of
		// the types that are not wanted. All but the echo reply, type 0.
		if err := unix.SetsockoptInt(fd, unix.SOL_RAW, 1, ^1); err != nil {
			return -1, os.NewSyscallError("setsockopt ICMP_FILTER", err)
		}
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}
