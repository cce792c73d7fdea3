package fastpath

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/rtnl"
)

// topology is what the kernel has of containers.
type topology struct {
	containers []Container
	// names are those of the bridges and ports, by index.
	names map[int]string
	// bridges are the indexes of bridges with the gateway of our subnet.
	bridges []int
	// unfit names the bridges that are left out, and why.
	unfit []string
}

// bridge is a bridge with an address of our subnet.
type bridge struct {
	index int
	mac   MAC
}

// discover reads bridges, ports, neighbours and forwarding entries. A container
// is a neighbour at a bridge that has the gateway of our subnet, with a hardware
// address that the bridge has learned at a port. The other end of the port must
// be in another network namespace, where bpf_redirect_peer can deliver.
func discover(h *netlink.Handle, subnet netip.Prefix) (topology, error) {
	t := topology{names: make(map[int]string)}
	links, err := rtnl.Links(h)
	if err != nil {
		return t, err
	}
	gateways, err := gatewaysOf(h, subnet)
	if err != nil {
		return t, err
	}
	bridges := make(map[int]bridge)
	for _, l := range links {
		if b, ok := t.addBridge(l, gateways); ok {
			bridges[b.index] = b
		}
	}
	ports := make(map[int]netlink.LinkAttrs)
	for _, l := range links {
		a := l.Attrs()
		if _, ours := bridges[a.MasterIndex]; ours {
			t.names[a.Index] = a.Name
			if l.Type() == "veth" && a.NetNsID >= 0 && a.Flags&net.FlagUp != 0 {
				ports[a.Index] = *a
			}
		}
	}
	for _, b := range bridges {
		t.bridges = append(t.bridges, b.index)
		if err := t.addContainers(h, b, ports, subnet); err != nil {
			return t, err
		}
	}
	slices.SortFunc(t.containers, func(a, b Container) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return t, nil
}

// gatewaysOf are the indexes of interfaces with an address of the subnet.
func gatewaysOf(h *netlink.Handle, subnet netip.Prefix) (map[int]bool, error) {
	addrs, err := rtnl.RetryDump("addresses", func() ([]netlink.Addr, error) { return h.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, err
	}
	gateways := make(map[int]bool)
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && subnet.Contains(ip) {
			gateways[a.LinkIndex] = true
		}
	}
	return gateways, nil
}

func (t *topology) addBridge(l netlink.Link, gateways map[int]bool) (bridge, bool) {
	b, ok := l.(*netlink.Bridge)
	if !ok || !gateways[b.Index] || len(b.HardwareAddr) != len(MAC{}) {
		return bridge{}, false
	}
	t.names[b.Index] = b.Name
	if b.VlanFiltering != nil && *b.VlanFiltering {
		t.unfit = append(t.unfit, fmt.Sprintf("bridge %s filters VLANs", b.Name))
		return bridge{}, false
	}
	return bridge{b.Index, MAC(b.HardwareAddr)}, true
}

// usable are the states of a neighbour that the kernel sends to without asking
// first (NUD_VALID of net/neighbour.h).
const usable = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE | netlink.NUD_PROBE | netlink.NUD_STALE | netlink.NUD_DELAY

func (t *topology) addContainers(h *netlink.Handle, b bridge, ports map[int]netlink.LinkAttrs, subnet netip.Prefix) error {
	entries, err := rtnl.RetryDump("forwarding entries", func() ([]netlink.Neigh, error) {
		return h.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE})
	})
	if err != nil {
		return err
	}
	at := make(map[MAC]int) // port, 0 if at several
	for _, e := range entries {
		// Permanent entries are of the port's own address.
		if e.MasterIndex != b.index || e.State&netlink.NUD_PERMANENT != 0 || len(e.HardwareAddr) != len(MAC{}) {
			continue
		}
		mac := MAC(e.HardwareAddr)
		if port, known := at[mac]; known && port != e.LinkIndex {
			at[mac] = 0
			continue
		}
		at[mac] = e.LinkIndex
	}
	neighbours, err := rtnl.RetryDump("neighbours", func() ([]netlink.Neigh, error) { return h.NeighList(b.index, unix.AF_INET) })
	if err != nil {
		return err
	}
	for _, n := range neighbours {
		ip, ok := netip.AddrFromSlice(n.IP.To4())
		if !ok || !subnet.Contains(ip) || n.State&usable == 0 || len(n.HardwareAddr) != len(MAC{}) {
			continue
		}
		port, ok := ports[at[MAC(n.HardwareAddr)]]
		if !ok || MAC(n.HardwareAddr) == b.mac {
			continue
		}
		t.containers = append(t.containers, Container{
			Addr: ip, MAC: MAC(n.HardwareAddr), Port: port.Index, PortMTU: port.MTU, Bridge: b.index, Gateway: b.mac,
		})
	}
	return nil
}
