// Package wakeup is how a reader of packets sleeps until the next one is there.
//
// The runtime's poller costs a packet more than one wake-up: the thread in
// epoll_wait becomes the goroutine's, and wakes a second one that searches for
// work and goes to sleep in its place. On an idle machine each wake-up of
// another processor is some 20 µs, and a request with its answer passes four
// readers. A thread that waits for its own descriptor takes one wake-up.
package wakeup

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// dense is how many packets between two waits are a load under which the
// runtime's poller is the better choice: it comes back later, with more of them
// at once. A stream of super-packets stays far below, so that its round trips,
// by which its sender measures the path, are short.
const dense = 48

// Limit is how long Readable waits at most, and so how long a reader takes to
// notice that it shall end. It is far more than there is between two packets
// where latency matters, and few enough wake-ups in front of a longer silence.
const Limit = 50 * time.Millisecond

// Reader waits for one descriptor. One goroutine uses it; it does not allocate.
type Reader struct {
	fds   [1]unix.PollFd
	taken int // since the last wait
}

// Took notes that packets were read.
func (r *Reader) Took(packets int) { r.taken += packets }

// Readable waits, in the calling thread, until a read from fd would return
// something or fail (poll(2)), for up to Limit. It returns false, perhaps at
// once, where the caller had better leave the waiting to the runtime's poller:
// under a dense load, and in a long silence, for which it needs no thread.
func (r *Reader) Readable(fd uintptr) bool {
	load := r.taken
	r.taken = 0
	if load > dense {
		return false
	}
	r.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	for {
		n, err := unix.Poll(r.fds[:], int(Limit.Milliseconds()))
		if errors.Is(err, unix.EINTR) { // the runtime preempts threads by signals
			continue
		}
		return err == nil && n > 0
	}
}
