package vxlan

import (
	"net/netip"

	"github.com/coreos/flannel/pkg/rtnl"
)

// holders says which host has a MAC. The kernel forwards frames for one to one
// host, so of hosts that say they have the same (one is a copy of the other, or
// lies) the first keeps it. One host may have several subnets.
type holders map[rtnl.MAC]holder

type holder struct {
	host    netip.Addr
	subnets int
}

// take reports whether host has mac now.
func (h holders) take(mac rtnl.MAC, host netip.Addr) bool {
	now, held := h[mac]
	if held && now.host != host {
		return false
	}
	h[mac] = holder{host, now.subnets + 1}
	return true
}

// give takes back one take, and reports whether the MAC is free.
func (h holders) give(mac rtnl.MAC) bool {
	now := h[mac]
	if now.subnets > 1 {
		h[mac] = holder{now.host, now.subnets - 1}
		return false
	}
	delete(h, mac)
	return true
}
