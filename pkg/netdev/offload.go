package netdev

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
func DisableTxChecksum(device string) error {
	return turn(device, "turn off checksum offload", unix.ETHTOOL_STXCSUM, 0)
}

// DisableTSO has a device take no super-packets of TCP, as "ethtool -K DEVICE tso off"
// does, in the network namespace of the calling thread.
func DisableTSO(device string) error {
	return turn(device, "turn off TSO", unix.ETHTOOL_STSO, 0)
}

// EnableGRO has a device join received packets, as "ethtool -K DEVICE gro on" does, in
// the network namespace of the calling thread.
func EnableGRO(device string) error {
	return turn(device, "turn on GRO", unix.ETHTOOL_SGRO, 1)
}

func turn(device, what string, command, value uint32) error {
	return ethtool(func(fd int) error {
		_, err := request(fd, device, what, command, value)
		return err
	})
}

// Offloads has the state of a device's offloads, as "ethtool -k DEVICE" shows them;
// true is on.
type Offloads struct {
	// Driver is the name of the device's driver, as "ethtool -i DEVICE" shows it; ""
	// if it has none, as lo.
	Driver string
	// TSO is tcp-segmentation-offload: the device takes super-packets of TCP, to
	// segment them or, as veth, to hand them on.
	TSO bool
	// GRO is generic-receive-offload, GSO generic-segmentation-offload.
	GRO, GSO bool
}

// OffloadsOf reads the offloads and the driver of a device, in the network namespace
// of the calling thread.
func OffloadsOf(device string) (o Offloads, err error) {
	err = ethtool(func(fd int) error {
		for command, on := range map[uint32]*bool{unix.ETHTOOL_GTSO: &o.TSO, unix.ETHTOOL_GGRO: &o.GRO, unix.ETHTOOL_GGSO: &o.GSO} {
			v, err := request(fd, device, "read offloads", command, 0)
			if err != nil {
				return err
			}
			*on = v != 0
		}
		info, err := unix.IoctlGetEthtoolDrvinfo(fd, device)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("read driver of %s: %w", device, err)
		}
		if err == nil {
			o.Driver = unix.ByteSliceToString(info.Driver[:])
		}
		return nil
	})
	return o, err
}

// ethtool calls do with a socket for requests; its kind does not matter.
func ethtool(do func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ethtool: %w", err)
	}
	return errors.Join(do(fd), unix.Close(fd))
}

// request makes an ethtool request with a value, and returns the value of the answer;
// what names it in the error.
func request(fd int, device, what string, command, data uint32) (uint32, error) {
	value := ethtoolValue{cmd: command, data: data}
	ifr := ifreqData{data: unsafe.Pointer(&value)}
	copy(ifr.name[:unix.IFNAMSIZ-1], device)
	// The only unsafe code of the package: both structures outlive the call,
	// and the collector follows the pointer between them.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
		return 0, fmt.Errorf("%s of %s: %w", what, device, errno)
	}
	return value.data, nil
}
