package udp

import (
	"fmt"
	"slices"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
)

// queueLength is the number of packets that each of the device's queues holds. The
// kernel cuts the super-packets of a container's own tunnel in front of it: with its
// usual 500 packets the queue overflows within a window of TCP.
const queueLength = 8192

// setUpQueues gives the device's queues their length, and the device no qdisc.
//
// A TUN device with several queues may get 256 (MAX_TAP_QUEUES, drivers/net/tun.c), and
// the kernel gives each a qdisc of that length: 50 MB. Packets wait in the device's own
// queues, of which the attached ones take 64 KB each.
func setUpQueues(h *netlink.Handle, device string) error {
	l, err := h.LinkByName(device)
	if err != nil {
		return fmt.Errorf("set up queues of %s: %w", device, err)
	}
	if err := removeQdisc(h, l); err != nil {
		log.Warningf("udp: remove qdisc of %s: %v; it takes memory of the kernel, and does no harm", device, err)
	}
	if l.Attrs().TxQLen == queueLength {
		return nil
	}
	if err := h.LinkSetTxQLen(l, queueLength); err != nil {
		return fmt.Errorf("lengthen queues of %s: %w", device, err)
	}
	return nil
}

// removeQdisc replaces the kernel's own qdisc of a device by none. One that a person has
// set has a handle and stays.
func removeQdisc(h *netlink.Handle, l netlink.Link) error {
	all, err := h.QdiscList(l)
	if err != nil {
		return err
	}
	set := slices.ContainsFunc(all, func(q netlink.Qdisc) bool {
		return q.Attrs().Parent == netlink.HANDLE_ROOT && q.Attrs().Handle != 0
	})
	if set {
		return nil
	}
	none := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT}
	return h.QdiscReplace(&netlink.GenericQdisc{QdiscAttrs: none, QdiscType: "noqueue"})
}
