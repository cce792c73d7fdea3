package fastpath

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel removes a neighbour and a forwarding entry after some minutes without a
// packet of the long way. So user space marks the neighbours of containers on the fast
// path as used (NTF_USE). The kernel then sends an ARP request to the container, and the
// answer also renews the forwarding entry.

// refresh renews the neighbours that were used since the last call.
func (p *Path) refresh(containers []Container) error {
	used, err := p.programs.used()
	if err != nil {
		return err
	}
	for _, c := range containers {
		if !used[c.station()] {
			continue
		}
		err := p.links.NeighSet(&netlink.Neigh{
			LinkIndex: c.Bridge, Family: unix.AF_INET, IP: c.Addr.AsSlice(), Flags: netlink.NTF_USE,
		})
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("refresh neighbour %v: %w", c.Addr, err)
		}
	}
	return nil
}

// used returns the stations whose packets took the fast path since the last
// call.
func (p *programs) used() (map[fastpathStation]bool, error) {
	used, epoch := make(map[fastpathStation]bool), p.epoch.Load()
	var address fastpathAddress
	var c fastpathContainer
	containers := p.Containers.Iterate()
	for containers.Next(&address, &c) {
		if c.Used == epoch {
			used[fastpathStation{Bridge: c.Bridge, Mac: c.Mac}] = true
		}
	}
	var station fastpathStation
	var port fastpathPort
	ports := p.Ports.Iterate()
	for ports.Next(&station, &port) {
		if port.Used == epoch {
			used[station] = true
		}
	}
	if err := errors.Join(containers.Err(), ports.Err()); err != nil {
		return nil, fmt.Errorf("read containers of fast path: %w", err)
	}
	p.epoch.Add(1)
	return used, nil
}
