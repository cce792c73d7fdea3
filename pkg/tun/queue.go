package tun

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxBuffers is the most buffers that one Writev takes (UIO_MAXIOV, which is
// IOV_MAX, in linux/uio.h).
const MaxBuffers = 1024

// ErrTooManyBuffers: more than MaxBuffers buffers for one packet.
var ErrTooManyBuffers = errors.New("more buffers than one system call takes")

// Queue is one of a device's queues. One goroutine may read while another one
// writes; two readers, or two writers, may not run at once. No method
// allocates, and none keeps the caller's bytes.
type Queue struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool

	// The reader's: arguments and results of a system call pass through these
	// fields and a closure made once, since a closure per call would allocate.
	readBuf  []byte
	readWait bool // park when there is nothing
	readN    int
	readErr  error
	doRead   func(fd uintptr) bool

	// The writer's.
	writeIov []unix.Iovec
	writeErr error
	doWrite  func(fd uintptr) bool
	iov      [MaxBuffers]unix.Iovec
}

// newQueue takes over fd, also when it fails. It must be attached already: the
// runtime's poller sees an error condition on a descriptor that is not.
func newQueue(fd int, name string) (*Queue, error) {
	q := &Queue{file: os.NewFile(uintptr(fd), clonePath+":"+name)}
	raw, err := q.file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, q.file.Close())
	}
	q.raw = raw
	q.doRead = q.readOnce
	q.doWrite = q.writeOnce
	return q, nil
}

// close wakes the reader and the writer, and waits until both have let go of
// the descriptor.
func (q *Queue) close() error {
	if q.closed.Swap(true) {
		return nil
	}
	return q.file.Close()
}

// cause translates the error of a RawConn, whose own for a closed file is
// internal to the runtime's poller.
func (q *Queue) cause(err error) error {
	if q.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// control runs f with the descriptor, which stays open meanwhile.
func (q *Queue) control(f func(fd int) error) error {
	var ferr error
	err := q.raw.Control(func(fd uintptr) { ferr = f(int(fd)) })
	if err != nil {
		return err
	}
	return ferr
}

// Read waits for a packet and copies it, a vnet header in front, into b, which
// should have MaxRead bytes: what does not fit is lost. It returns
// os.ErrDeadlineExceeded after Wake and os.ErrClosed after Close.
func (q *Queue) Read(b []byte) (int, error) { return q.read(b, true) }

// TryRead is Read, except that it returns 0 where no packet is waiting.
func (q *Queue) TryRead(b []byte) (int, error) { return q.read(b, false) }

func (q *Queue) read(b []byte, wait bool) (int, error) {
	q.readBuf, q.readWait, q.readN, q.readErr = b, wait, 0, nil
	err := q.raw.Read(q.doRead)
	q.readBuf = nil
	if err != nil {
		return 0, fmt.Errorf("read TUN: %w", q.cause(err))
	}
	if q.readErr != nil {
		return 0, fmt.Errorf("read TUN: %w", q.readErr)
	}
	return q.readN, nil
}

// readOnce reports whether the call is over, as RawConn.Read wants it.
func (q *Queue) readOnce(fd uintptr) bool {
	for {
		n, err := unix.Read(int(fd), q.readBuf)
		switch err {
		case nil:
			q.readN = n
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return !q.readWait
		default:
			q.readErr = err
		}
		return true
	}
}

// Writev gives the kernel one packet, in pieces: first an encoded vnet header,
// then the packet's bytes. A TUN takes a packet whole or not at all. Errors
// carry the errno: EINVAL for a header that the kernel does not accept, EIO
// while the device is down.
func (q *Queue) Writev(bufs [][]byte) error {
	if len(bufs) > MaxBuffers {
		return fmt.Errorf("write TUN: %w", ErrTooManyBuffers)
	}
	n := 0
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		q.iov[n].Base = &b[0]
		q.iov[n].SetLen(len(b))
		n++
	}
	q.writeIov, q.writeErr = q.iov[:n], nil
	if err := q.raw.Write(q.doWrite); err != nil {
		return fmt.Errorf("write TUN: %w", q.cause(err))
	}
	if q.writeErr != nil {
		return fmt.Errorf("write TUN: %w", q.writeErr)
	}
	return nil
}

func (q *Queue) writeOnce(fd uintptr) bool {
	for {
		switch errno := writev(fd, q.writeIov); errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		default:
			q.writeErr = errno
		}
		return true
	}
}
