package tun

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Queue is one of a device's queues. One goroutine may read from it; writing is
// done by Writers. Nothing here allocates per packet, or keeps the caller's bytes.
type Queue struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool

	// Arguments and results of a system call pass through these fields and a
	// closure made once, since a closure per call would allocate.
	buf    []byte
	park   bool // wait when there is nothing
	waited bool
	n      int
	err    error
	do     func(fd uintptr) bool
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
	q.do = q.readOnce
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
// should have MaxRead bytes: what does not fit is lost. It also reports whether
// it had to wait, for if not, more may be there. It returns
// os.ErrDeadlineExceeded after Wake and os.ErrClosed after Close.
func (q *Queue) Read(b []byte) (n int, waited bool, err error) {
	n, err = q.read(b, true)
	return n, q.waited, err
}

// TryRead is Read, except that it returns 0 where no packet is there.
func (q *Queue) TryRead(b []byte) (int, error) { return q.read(b, false) }

func (q *Queue) read(b []byte, park bool) (int, error) {
	q.buf, q.park, q.waited, q.n, q.err = b, park, false, 0, nil
	err := q.raw.Read(q.do)
	q.buf = nil
	if err != nil {
		return 0, fmt.Errorf("read TUN: %w", q.cause(err))
	}
	if q.err != nil {
		return 0, fmt.Errorf("read TUN: %w", q.err)
	}
	return q.n, nil
}

// readOnce reports whether the call is over, as RawConn.Read wants it.
func (q *Queue) readOnce(fd uintptr) bool {
	for {
		n, errno := read(fd, q.buf)
		switch errno {
		case 0:
			q.n = n
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			q.waited = q.park
			return !q.park
		default:
			q.err = errno
		}
		return true
	}
}
