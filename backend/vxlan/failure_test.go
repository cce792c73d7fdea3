package vxlan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet"
)

// A start that fails names what is in the way, and leaves no device behind. A
// device of an earlier run stays.
func TestFailedStartLeavesNothing(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	up := func() error {
		b, err := New(config(t, `{}`))
		if err != nil {
			return err
		}
		return h.Do(func() error {
			n, err := b.Up(t.Context(), subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Attrs: b.Attrs()})
			if err == nil {
				err = n.Close()
			}
			return err
		})
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cilium_vxlan"
	other := &netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: DefaultPort}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(h.Netlink().LinkAdd(other))
	check(h.Netlink().LinkSetUp(other))
	if err := up(); err == nil || !strings.Contains(err.Error(), "cilium_vxlan") || !strings.Contains(err.Error(), "8472") {
		t.Errorf("another device has the port: %v", err)
	}
	if h.HasLink("flannel.1") {
		t.Error("the device is still there")
	}
	check(h.Netlink().LinkSetDown(other))
	check(up())
	left, err := h.Netlink().LinkByName("flannel.1")
	check(err)
	check(h.Netlink().LinkSetDown(left))
	check(h.Netlink().LinkSetUp(other))
	if err := up(); err == nil || !h.HasLink("flannel.1") {
		t.Errorf("%v; a device of an earlier run there: %t", err, h.HasLink("flannel.1"))
	}
}

// An MTU above the uplink's is named: the kernel says "invalid argument".
func TestMTUAboveUplink(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	b, err := New(config(t, `{"MTU": 9000}`))
	if err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() error {
		_, err := b.Up(t.Context(), subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Attrs: b.Attrs()})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "Backend.MTU 9000") || !strings.Contains(err.Error(), "1500") || h.HasLink("flannel.1") {
		t.Errorf("got %v; a device is left: %t", err, h.HasLink("flannel.1"))
	}
}
