package udpsock

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Every kind of socket is bound to the device, and one that does not exist is an
// error.
func TestSocketsOfDevice(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	err := h.Do(func() error {
		cfg := Config{Local: netip.AddrPortFrom(h.Addr().Addr(), 0), Device: netnstest.Uplink}
		one, err := Open(cfg)
		if err != nil {
			return err
		}
		defer one.Close()
		shared, err := Listen(cfg, 2)
		if err != nil {
			return err
		}
		sending, err := OpenSend(cfg)
		if err != nil {
			return err
		}
		defer sending.Close()
		for _, s := range []Socket{one, shared[0], shared[1], sending} {
			var name string
			if err := s.common().control(func(fd int) (err error) {
				name, err = unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
				return err
			}); err != nil || name != netnstest.Uplink {
				t.Errorf("%T is bound to %q, %v", s, name, err)
			}
		}
		for _, c := range shared {
			c.Close()
		}
		cfg.Device = "absent"
		if _, err := Open(cfg); err == nil {
			t.Error("a socket of an absent device")
		}
		if _, err := OpenSend(cfg); err == nil {
			t.Error("a sending socket of an absent device")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
