package rtnl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// failure is an operation that failed.
type failure struct {
	what string
	err  error
}

func (f *failure) Error() string { return f.what + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// absent is an interface that does not exist (yet).
type absent struct{ link string }

func (a *absent) Error() string { return "interface " + a.link + " does not exist" }

// foreignRoute is the reason of a refusal: another program's route.
type foreignRoute struct{ route kernelRoute }

func (f foreignRoute) Error() string {
	return fmt.Sprintf("%v: %v protocol %d", ErrForeign, f.route.Route, f.route.protocol)
}

func (f foreignRoute) Unwrap() error { return ErrForeign }

// refusal returns a Refusal for an error that lasts until links, addresses or
// routes change. It returns nil for a transient error.
func refusal(r Route, err error) *Refusal {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EINVAL):
		return &Refusal{r, fmt.Errorf("%w of %s: %w", ErrNotOnLink, r.Dev, err)}
	case errors.Is(err, unix.EEXIST):
		return &Refusal{r, fmt.Errorf("%w: %w", ErrForeign, err)}
	}
	return nil
}

// isNotFound reports whether a deletion failed because the entry does not exist: ESRCH
// for routes, ENOENT for neighbours and forwarding entries, ENODEV if the device
// does not exist.
func isNotFound(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
