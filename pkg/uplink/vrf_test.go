package uplink

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// An interface belongs to the VRF of its master, or of its master's master.
func TestVRFOfInterface(t *testing.T) {
	attrs := func(index, master int, name string) netlink.LinkAttrs {
		return netlink.LinkAttrs{Index: index, MasterIndex: master, Name: name}
	}
	all := []netlink.Link{
		&netlink.Vrf{LinkAttrs: attrs(1, 0, "red"), Table: 10},
		&netlink.Bond{LinkAttrs: attrs(2, 1, "bond0")},
		&netlink.Device{LinkAttrs: attrs(3, 2, "eth0")},
		&netlink.Device{LinkAttrs: attrs(4, 1, "eth1")},
		&netlink.Bridge{LinkAttrs: attrs(5, 0, "br0")},
		&netlink.Device{LinkAttrs: attrs(6, 5, "eth2")},
		&netlink.Device{LinkAttrs: attrs(7, 0, "eth3")},
		&netlink.Device{LinkAttrs: attrs(8, 99, "eth4")}, // the master is in another namespace
		&netlink.Device{LinkAttrs: attrs(9, 9, "loop")},
	}
	for i, want := range []string{"", "red", "red", "red", "", "", "", "", ""} {
		if got := vrfOf(all[i], all); got != want {
			t.Errorf("%s: VRF %q, want %q", all[i].Attrs().Name, got, want)
		}
	}
}
