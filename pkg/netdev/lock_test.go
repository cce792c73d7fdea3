package netdev

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// bindAs binds a name inside h as another user: a socket's user is the thread's
// for files (setfsuid(2)).
func bindAs(t *testing.T, h *netnstest.Host, uid int, name string) (c *net.UnixConn) {
	t.Helper()
	if err := h.Do(func() (err error) {
		if err := unix.Setfsuid(uid); err != nil {
			return err
		}
		c, err = bind(name)
		return errors.Join(err, unix.Setfsuid(0))
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// lockIn is Lock inside h; the lock ends with the test.
func lockIn(t *testing.T, h *netnstest.Host, device string) (c io.Closer, err error) {
	t.Helper()
	err = h.Do(func() (err error) { c, err = Lock(device); return err })
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// A user who takes the names of locks keeps no flannel from its device, and lets
// no two have it.
func TestLockNameOfAnotherUser(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	const nobody = 65534
	foreign := bindAs(t, h, nobody, lockPrefix+device)
	bindAs(t, h, nobody, lockPrefix+device+"/0")
	first, err := lockIn(t, h, device)
	if err != nil {
		t.Fatalf("with a name that is nobody's: %v", err)
	}
	if _, err := lockIn(t, h, device); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	if err := foreign.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := lockIn(t, h, device); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock, when the name is free: %v", err)
	}
	if _, err := lockIn(t, h, "flannel.10"); err != nil {
		t.Errorf("another device: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := lockIn(t, h, device); err != nil {
		t.Errorf("after Close: %v", err)
	}
}
