package udp

import (
	"errors"
	"net/netip"

	"github.com/coreos/flannel/pkg/rtnl"
)

// Check implements backend.Checker. The table of the paths in user space is what
// Apply has made it, and nobody else can write to it; device, route, and the
// kernel path's programs and maps are within everybody's reach.
func (n *network) Check() error {
	name := n.path.deviceName()
	if err := rtnl.CheckUp(n.link.netlink, name, netip.PrefixFrom(n.own.Addr(), n.own.Addr().BitLen()), n.MTU()); err != nil {
		return err // and with it the route is gone
	}
	err := rtnl.CheckRoute(n.link.netlink, n.plane.network, name)
	if n.kernel != nil {
		err = errors.Join(err, n.kernel.check())
	}
	return err
}

// check is nil if the programs are at work with the peers that they were told,
// and also where they have failed: offload carries the packets then.
func (k *kernel) check() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == nil || !k.attached {
		return nil
	}
	return k.path.Check()
}
