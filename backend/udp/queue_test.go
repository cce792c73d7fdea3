package udp

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/tun"
)

// rootQdisc returns the qdisc of a device; nil: noop or none is visible.
func rootQdisc(t *testing.T, h *netlink.Handle, device string) netlink.Qdisc {
	t.Helper()
	l, err := h.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	all, err := h.QdiscList(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range all {
		if q.Attrs().Parent == netlink.HANDLE_ROOT {
			return q
		}
	}
	return nil
}

// A device has no qdisc, also one that an earlier release has made and that is up. The
// qdisc of a person stays.
func TestQueues(t *testing.T) {
	netnstest.Require(t)
	host := netnstest.New(t).Host("a")
	h := host.Netlink()
	err := host.Do(func() error {
		d, err := tun.Open(tun.Config{Name: "flannel0", Queues: 2})
		if err != nil {
			return err
		}
		t.Cleanup(func() { d.Close() })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	host.Up("flannel0")
	if q := rootQdisc(t, h, "flannel0"); q == nil || q.Type() != "mq" {
		t.Fatalf("the device begins with %v, want the kernel's qdisc", q)
	}
	for range 2 {
		if err := setUpQueues(h, "flannel0"); err != nil {
			t.Fatal(err)
		}
	}
	q := rootQdisc(t, h, "flannel0")
	if q == nil || q.Type() != "noqueue" {
		t.Errorf("the device has %v, want noqueue", q)
	}
	l, err := h.LinkByName("flannel0")
	if err != nil || l.Attrs().TxQLen != queueLength {
		t.Errorf("device %+v, %v; want queues of %d packets", l, err, queueLength)
	}

	own := &netlink.GenericQdisc{QdiscType: "pfifo", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}}
	if err := h.QdiscReplace(own); err != nil {
		t.Fatal(err)
	}
	if err := setUpQueues(h, "flannel0"); err != nil {
		t.Fatal(err)
	}
	if q := rootQdisc(t, h, "flannel0"); q == nil || q.Type() != "pfifo" {
		t.Errorf("the device has %v, want the qdisc that was set", q)
	}
}
