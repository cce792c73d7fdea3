package logpipe

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// crashPause is how long each write of a crash waits for a socket's reader. A trace
// takes some hundred writes.
const crashPause = 10_000 // µs

// unblock keeps a crash from waiting for the reader of fd. The Go runtime writes the
// trace of a panic, or of SIGQUIT and SIGABRT, to standard error itself. Nothing ends
// the process while that write waits. A reader that has stopped loses the end of the
// trace.
func unblock(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		// O_NONBLOCK is of the open file, which other processes share (fcntl(2)).
		// The pipe opened anew is another open file.
		own, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.Dup3(own, fd, 0), unix.Close(own))
	case unix.S_IFSOCK: // the journal's; it cannot be opened anew
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: crashPause})
	}
	return nil
}
