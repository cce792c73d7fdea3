package rtnl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// failure is an operation that the kernel has not done.
type failure struct {
	what string
	err  error
}

func (f *failure) Error() string { return f.what + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// absent: an interface is not there (yet).
type absent struct{ link string }

func (a *absent) Error() string { return "interface " + a.link + " does not exist" }

// foreignRoute is the reason of a refusal: whose route it is.
type foreignRoute struct{ route kernelRoute }

func (f foreignRoute) Error() string {
	return fmt.Sprintf("%v: %v protocol %d", ErrForeign, f.route.Route, f.route.protocol)
}

func (f foreignRoute) Unwrap() error { return ErrForeign }

// refusal tells what the kernel will not do as things are from what may work
// in a moment; nil for the latter.
func refusal(r Route, err error) *Refusal {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EINVAL):
		return &Refusal{r, fmt.Errorf("%w of %s: %w", ErrNotOnLink, r.Dev, err)}
	case errors.Is(err, unix.EEXIST):
		return &Refusal{r, fmt.Errorf("%w: %w", ErrForeign, err)}
	}
	return nil
}

// gone reports whether what was to be deleted is not there: ESRCH for routes,
// ENOENT for neighbours and forwarding entries, ENODEV with their device.
func gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
