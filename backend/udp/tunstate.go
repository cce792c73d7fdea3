package udp

import (
	"errors"
	"fmt"
	"os"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/pkg/tun"
)

// tunDevice is implemented by data paths whose device has several queues. Any
// process that the kernel lets attach takes a share of the flows.
type tunDevice interface{ tunDevice() *tun.Device }

func (d *offloaded) tunDevice() *tun.Device { return d.device }

// errForeignQueue: another process has a queue of the device. The kernel
// detaches it only with the device.
var errForeignQueue = errors.New("another process is attached to the device and takes a part of its packets")

// checkTUN returns an error if packets go elsewhere than to this process, or
// would be misread. The data path plain has a device that nobody else can attach
// to.
func checkTUN(h *netlink.Handle, path dataPath) error {
	d, ok := path.(tunDevice)
	if !ok {
		return nil
	}
	l, err := h.LinkByName(path.deviceName())
	if err != nil {
		return fmt.Errorf("look up tunnel device %s: %w", path.deviceName(), err)
	}
	if t, ok := l.(*netlink.Tuntap); ok {
		ours := len(d.tunDevice().Queues())
		if have := t.Queues + t.DisabledQueues; have > ours {
			return fmt.Errorf("%s: %w: %d queues, of which %d are ours", t.Name, errForeignQueue, have, ours)
		}
		if t.Owner != uint32(os.Geteuid()) {
			return fmt.Errorf("%s belongs to user %d, not %d", t.Name, int32(t.Owner), os.Geteuid())
		}
	}
	return d.tunDevice().CheckHeader()
}

// mendTUN puts right what checkTUN finds. A device with a foreign queue is
// deleted: Run returns backend.ErrGone, and the daemon makes another one.
func mendTUN(h *netlink.Handle, path dataPath) error {
	err := checkTUN(h, path)
	switch {
	case errors.Is(err, tun.ErrHeader):
		log.Errorf("reset header device=%s reason=%q", path.deviceName(), err)
		return path.(tunDevice).tunDevice().ResetHeader()
	case errors.Is(err, errForeignQueue):
		log.Errorf("delete device device=%s reason=%q", path.deviceName(), err)
		return errors.Join(err, rtnl.DeleteLink(h, path.deviceName()))
	}
	return err
}
