package logpipe_test

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/logpipe"
)

// crashing has the test's own binary start the log, and then panic.
const crashing = "LOGPIPE_TEST_CRASH"

func crash() {
	if _, _, err := logpipe.Start(); err != nil {
		os.Exit(1)
	}
	panic("a crash")
}

// A crash ends the process though nobody reads the log.
func TestCrashWithStoppedReader(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	socket, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, ends := range map[string][2]int{"pipe": pipe, "socket": socket} {
		t.Run(name, func(t *testing.T) {
			reader, log := os.NewFile(uintptr(ends[0]), "reader"), os.NewFile(uintptr(ends[1]), "log")
			defer reader.Close()
			defer log.Close()
			fill(t, log)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c := exec.CommandContext(ctx, "/proc/self/exe")
			c.Env, c.Stderr = append(os.Environ(), crashing+"=1"), log
			if err := c.Run(); c.ProcessState.ExitCode() != 2 {
				t.Errorf("the process ended with %v, want exit code 2 of a panic", err)
			}
		})
	}
}

// fill writes to a file until it takes no more.
func fill(t *testing.T, f *os.File) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = unix.SetNonblock(int(fd), true); failed != nil {
			return
		}
		for failed == nil {
			_, failed = unix.Write(int(fd), make([]byte, 1))
		}
		if failed == unix.EAGAIN {
			failed = unix.SetNonblock(int(fd), false)
		}
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}
