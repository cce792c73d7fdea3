package udp

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/tun"
)

// A persistent TUN device that another program made is neither taken over nor removed,
// whatever its name and its address.
func TestForeignDeviceStays(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("h")
	network := netip.MustParsePrefix("10.5.0.0/16")
	for _, name := range []string{"flannel0", "flannel1"} {
		out, err := h.Command(t.Context(), "ip", "tuntap", "add", "dev", name, "mode", "tun").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	h.AddAddr("flannel1", netip.MustParsePrefix("10.5.1.0/32"))
	err := h.Do(func() error {
		name, found, lock, err := lockDevice(h.Netlink(), []netip.Prefix{network})
		if err != nil {
			return err
		}
		if name != "flannel2" || found {
			t.Errorf("chose %s, found %v; want a new flannel2", name, found)
		}
		if err := lock.Close(); err != nil {
			return err
		}
		return Remove(t.Context(), network)
	})
	if err != nil {
		t.Fatal(err)
	}
	if !h.HasLink("flannel0") || !h.HasLink("flannel1") {
		t.Error("a device is gone")
	}
}

// A run that was killed at any point leaves a device that the next one finds.
func TestMarkedDeviceIsFound(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("h")
	network := netip.MustParsePrefix("10.5.0.0/16")
	err := h.Do(func() error {
		d, err := tun.Open(tun.Config{Name: "flannel0", Persistent: true, Made: func(name string) error {
			l, err := h.Netlink().LinkByName(name)
			if err == nil && !l.(*netlink.Tuntap).NonPersist {
				t.Error("the device is persistent before it is marked")
			}
			return markDevice(h.Netlink(), name)
		}})
		if err != nil {
			return err
		}
		if err := d.Close(); err != nil {
			return err
		}
		name, found, lock, err := lockDevice(h.Netlink(), []netip.Prefix{network})
		if err != nil {
			return err
		}
		if name != "flannel0" || !found {
			t.Errorf("chose %s, found %v; want the one that is left", name, found)
		}
		if err := lock.Close(); err != nil {
			return err
		}
		return Remove(t.Context(), network)
	})
	if err != nil {
		t.Fatal(err)
	}
	if h.HasLink("flannel0") {
		t.Error("the device stays")
	}
}
