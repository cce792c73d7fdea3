package tun

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Queue is one of a device's queues. One goroutine may read from it; Writers
// write to it. A Queue does not allocate per packet or keep the caller's bytes.
type Queue struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool

	// The fields below pass arguments and results of a system call to a closure
	// made once. A closure per call would allocate.
	buf    []byte
	park   bool // wait for a packet
	waited bool
	n      int
	err    error
	do     func(fd uintptr) bool
}

// newQueue takes over fd, also if it fails. fd must be attached already: the
// runtime's poller gets an error condition for a descriptor that is not.
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

// close wakes the reader and the writers, and waits until they have released
// the descriptor.
func (q *Queue) close() error {
	if q.closed.Swap(true) {
		return nil
	}
	return q.file.Close()
}

// cause translates an error of a RawConn. Its error for a closed file is
// internal to the runtime's poller.
func (q *Queue) cause(err error) error {
	if q.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// control runs f with the descriptor, which stays open during the call.
func (q *Queue) control(f func(fd int) error) error {
	var ferr error
	err := q.raw.Control(func(fd uintptr) { ferr = f(int(fd)) })
	if err != nil {
		return err
	}
	return ferr
}

// Read waits for a packet and copies it to b, after its vnet header. b should
// have MaxRead bytes: the rest of a longer packet is lost. waited is false if
// the packet was there already, so that more may be. Errors:
// os.ErrDeadlineExceeded after Wake, os.ErrClosed after Close.
func (q *Queue) Read(b []byte) (n int, waited bool, err error) {
	n, err = q.read(b, true)
	return n, q.waited, err
}

// TryRead is Read without the wait: it returns 0 if there is no packet.
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

// readOnce returns true if the call is complete, as RawConn.Read requires.
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
