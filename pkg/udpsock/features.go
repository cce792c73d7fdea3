package udpsock

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Features reports a socket's offloads: nil for one that is on, else the reason
// why it is off.
type Features struct {
	// Segment: UDP_SEGMENT (Linux 4.18), many datagrams in one send.
	Segment error
	// GRO: UDP_GRO (Linux 5.0), many datagrams in one receive.
	GRO error
	// Buffers: the socket's buffers have the size of Config.Buffer.
	Buffers error
}

// Reasons why an offload is off.
var (
	ErrSwitchedOff = errors.New("switched off by configuration")
	// ErrMangles: Linux 7.0 to 7.1.4 write wrong UDP headers into batches whose
	// datagrams all have the same length (introduced by torvalds/linux b10b446,
	// fixed by 78effd8 and 5f17ae0). It depends on the network card, so no probe
	// finds it.
	ErrMangles = errors.New("kernels 7.0 to 7.1.4 mangle batches of equal length")
	// ErrRefused: the kernel accepted the option and then refused to send.
	ErrRefused = errors.New("refused when sending")
)

// Features returns which offloads are on. Segment can go off later, if a send
// fails with EIO (a network card without checksum offload) or EINVAL.
func (s *socket) Features() Features {
	f := s.features
	if why := s.segmentOff.Load(); why != nil {
		f.Segment = fmt.Errorf("%w: %w", ErrRefused, *why)
	}
	return f
}

func (s *socket) segments() bool { return s.features.Segment == nil && s.segmentOff.Load() == nil }

// probeSegment returns nil if sends may use UDP_SEGMENT. The option itself stays
// 0: each send passes its own size.
func (s *socket) probeSegment(cfg Config) error {
	if cfg.NoSegment {
		return ErrSwitchedOff
	}
	err := s.control(func(fd int) error {
		_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
		return err
	})
	if err == nil && mangles(kernelRelease()) {
		return ErrMangles
	}
	return err
}

// mangles returns true for the kernel releases of ErrMangles, such as
// "7.0.2-6-pve".
func mangles(release string) bool {
	var major, minor, patch int
	// A release without a patch level, "7.1-rc3", leaves it 0.
	if n, _ := fmt.Sscanf(release, "%d.%d.%d", &major, &minor, &patch); n < 2 {
		return false
	}
	return major == 7 && (minor == 0 || minor == 1 && patch < 5)
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
