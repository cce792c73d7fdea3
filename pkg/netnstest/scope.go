package netnstest

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Scope is the part of [testing.TB] that a lab needs.
type Scope interface {
	Helper()
	Logf(format string, args ...any)
	// Fatalf reports and does not return (runtime.Goexit).
	Fatalf(format string, args ...any)
	// Cleanup registers f to run when the scope ends, last registered first.
	Cleanup(f func())
}

// Skipper is the part of [testing.TB] that [Require] needs.
type Skipper interface {
	Helper()
	Skipf(format string, args ...any)
}

// Require skips the test if this process may not make network namespaces.
func Require(t Skipper) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root to make network namespaces; run as root, e.g. sudo ./test")
	}
	if err := tryUnshare(); errors.Is(err, unix.EPERM) {
		t.Skipf("needs CAP_SYS_ADMIN to make network namespaces; run outside of an unprivileged container")
	}
}

// tryUnshare makes a namespace on a thread that ends with its locked goroutine.
func tryUnshare() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}
