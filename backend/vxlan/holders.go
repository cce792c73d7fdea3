package vxlan

import (
	"net/netip"

	"github.com/coreos/flannel/pkg/rtnl"
)

// holders maps each MAC to the host that has it. The kernel forwards frames for a
// MAC to one host. If leases of two hosts have the same MAC, as after one was
// copied, the first keeps it. One host may have several subnets.
type holders map[rtnl.MAC]holder

type holder struct {
	host    netip.Addr
	subnets int
}

// take gives mac to host for one more subnet, and reports whether host has it.
func (h holders) take(mac rtnl.MAC, host netip.Addr) bool {
	now, held := h[mac]
	if held && now.host != host {
		return false
	}
	h[mac] = holder{host, now.subnets + 1}
	return true
}

// give undoes one take, and reports whether the MAC is free.
func (h holders) give(mac rtnl.MAC) bool {
	now := h[mac]
	if now.subnets > 1 {
		h[mac] = holder{now.host, now.subnets - 1}
		return false
	}
	delete(h, mac)
	return true
}
