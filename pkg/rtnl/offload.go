package rtnl

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ifreqData is struct ifreq (linux/if.h) with its union used as a pointer, and
// ethtoolValue is struct ethtool_value (linux/ethtool.h).
type (
	ifreqData struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	ethtoolValue struct{ cmd, data uint32 }
)

// DisableTxChecksum turns off the checksum offload of what a device sends, as
// "ethtool -K DEVICE tx-checksum-ip-generic off" does. The kernel then computes
// checksums before packets enter the device. (The netlink form of this request
// came with Linux 5.7; the kernels that need it are older.) It works in the
// network namespace of the calling thread.
func DisableTxChecksum(device string) (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ethtool: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	off := ethtoolValue{cmd: unix.ETHTOOL_STXCSUM}
	request := ifreqData{data: unsafe.Pointer(&off)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	// The only unsafe code of the package: both structures outlive the call,
	// and the collector follows the pointer between them.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("turn off checksum offload of %s: %w", device, errno)
	}
	return nil
}
