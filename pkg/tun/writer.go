package tun

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxBuffers is the most buffers that one Writev takes (UIO_MAXIOV, linux/uio.h).
const maxBuffers = 1024

// errTooManyBuffers reports more than maxBuffers buffers for one packet.
var errTooManyBuffers = errors.New("more buffers than one system call takes")

// Writer writes packets to a queue. One goroutine uses it; a queue may have
// several.
type Writer struct {
	queue *Queue
	iovs  [maxBuffers]unix.Iovec
	n     int
	errno syscall.Errno
	do    func(fd uintptr) bool
}

// NewWriter returns a Writer to q.
func NewWriter(q *Queue) *Writer {
	w := &Writer{queue: q}
	w.do = w.writeOnce
	return w
}

// Writev writes one packet, in pieces: an encoded vnet header, then the packet's
// bytes. A TUN takes a packet whole or not at all. Errors wrap the errno: EINVAL
// for a header that the kernel refuses, EIO while the device is down.
func (w *Writer) Writev(bufs [][]byte) error {
	if len(bufs) > maxBuffers {
		return fmt.Errorf("write TUN: %w", errTooManyBuffers)
	}
	w.n, w.errno = 0, 0
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		w.iovs[w.n].Base = &b[0]
		w.iovs[w.n].SetLen(len(b))
		w.n++
	}
	if err := w.queue.raw.Write(w.do); err != nil {
		return fmt.Errorf("write TUN: %w", w.queue.cause(err))
	}
	if w.errno != 0 {
		return fmt.Errorf("write TUN: %w", w.errno)
	}
	return nil
}

func (w *Writer) writeOnce(fd uintptr) bool {
	for {
		switch errno := writev(fd, w.iovs[:w.n]); errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		default:
			w.errno = errno
		}
		return true
	}
}
