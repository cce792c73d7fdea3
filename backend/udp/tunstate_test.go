package udp

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/tun"
)

// attach attaches another queue to the device flannel0, or makes it, as any
// program with the right to can.
func attach(h *netnstest.Host) (fd int, err error) {
	return fd, h.Do(func() error {
		ifr, err := unix.NewIfreq("flannel0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
}

// Whoever attaches to the device takes a part of its packets: Check reports it,
// and the device is made anew.
func TestForeignQueue(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("h")
	n := upOn(t, h, lease("10.5.1.0/24", h.Addr().Addr().String()), "offload", "")
	if err := n.Check(); err != nil {
		t.Fatalf("before: %v", err)
	}
	fd, err := attach(h)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := n.Check(); !errors.Is(err, errForeignQueue) {
		t.Errorf("with a queue of another process: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.Run(ctx); !errors.Is(err, backend.ErrGone) {
		t.Errorf("Run ended with %v, want %v", err, backend.ErrGone)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// A process that was attached before a start holds a queue no longer.
func TestForeignQueueBeforeStart(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("h")
	fd, err := attach(h) // which makes the device, as a run before did
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1), markDevice(h.Netlink(), "flannel0")); err != nil {
		t.Fatal(err)
	}
	n := upOn(t, h, lease("10.5.1.0/24", h.Addr().Addr().String()), "kernel", "")
	defer n.Close()
	if err := n.Check(); err != nil {
		t.Error(err)
	}
	if _, err := unix.Write(fd, make([]byte, 60)); !errors.Is(err, unix.EBADFD) {
		t.Errorf("the old queue takes packets: %v", err)
	}
}

// A header of another size is found and put right.
func TestHeaderSizeIsPutRight(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("h")
	n := upOn(t, h, lease("10.5.1.0/24", h.Addr().Addr().String()), "offload", "")
	fd, err := attach(h)
	if err == nil {
		err = errors.Join(unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, 12), unix.Close(fd))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Check(); !errors.Is(err, tun.ErrHeader) {
		t.Errorf("Check of a device with another header: %v", err)
	}
	if err := errors.Join(n.ensureDevice(inet.IPv4), n.Check()); err != nil {
		t.Errorf("then: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// The device has an owner. A process with the right to can change it, and Check
// reports that.
func TestCheckOwner(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("h")
	for _, dataPath := range []string{"offload", "plain"} {
		n := upOn(t, h, lease("10.5.1.0/24", h.Addr().Addr().String()), dataPath, "")
		l, err := h.Netlink().LinkByName("flannel0")
		if device, ok := l.(*netlink.Tuntap); err != nil || !ok || device.Owner != 0 && dataPath == "offload" {
			t.Errorf("%s: device %+v, %v; want one of user 0", dataPath, l, err)
		}
		if err := n.Check(); err != nil {
			t.Errorf("%s: %v", dataPath, err)
		}
		if dataPath == "offload" {
			fd, err := attach(h)
			if err == nil {
				err = errors.Join(unix.IoctlSetInt(fd, unix.TUNSETOWNER, 65534), unix.Close(fd))
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Check(); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
				t.Errorf("Check of another user's device: %v", err)
			}
		}
		if err := n.Close(); err != nil {
			t.Errorf("%s: %v", dataPath, err)
		}
	}
}
