package udpsock

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Features says which offloads a socket has: nil where one is on, else the
// reason why it is off.
type Features struct {
	// Segment: UDP_SEGMENT (Linux 4.18), many datagrams in one send.
	Segment error
	// GRO: UDP_GRO (Linux 5.0), many datagrams in one receive.
	GRO error
}

// Reasons why an offload is off.
var (
	ErrSwitchedOff = errors.New("switched off by configuration")
	// ErrMangles: Linux 7.0 to 7.1.4 write wrong UDP headers into batches whose
	// datagrams have all the same length (introduced by torvalds/linux b10b446,
	// mended by 78effd8 and 5f17ae0). Whether they do depends on the network
	// card, so that no probe can tell.
	ErrMangles = errors.New("kernels 7.0 to 7.1.4 mangle batches of equal length")
	// ErrRefused: the kernel accepted the option and then refused to send.
	ErrRefused = errors.New("refused when sending")
)

// Features says which offloads are on. Segment can go off later, when a send
// shows that a network card has no checksum offload (EIO) or that something on
// the way does not want it (EINVAL).
func (c *Conn) Features() Features {
	f := c.features
	if why := c.segmentOff.Load(); why != nil {
		f.Segment = fmt.Errorf("%w: %s", ErrRefused, *why)
	}
	return f
}

func (c *Conn) segments() bool { return c.features.Segment == nil && c.segmentOff.Load() == nil }

func (c *Conn) turnOffSegment(cause error) {
	why := cause.Error()
	c.segmentOff.Store(&why)
}

// probe turns on what the kernel has.
func (c *Conn) probe(cfg Config) Features {
	f := Features{Segment: ErrSwitchedOff, GRO: ErrSwitchedOff}
	if !cfg.NoSegment {
		// The option itself stays 0; each send says its own size.
		_, f.Segment = c.getsockopt(unix.SOL_UDP, unix.UDP_SEGMENT)
		if f.Segment == nil && mangles(kernelRelease()) {
			f.Segment = ErrMangles
		}
	}
	if !cfg.NoGRO {
		f.GRO = c.setsockopt(unix.SOL_UDP, unix.UDP_GRO, 1)
	}
	return f
}

// mangles reports whether a kernel release such as "7.0.2-6-pve" is one of
// those that ErrMangles is about.
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
