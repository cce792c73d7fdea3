package fastpath

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// topology is what the kernel has of containers.
type topology struct {
	gateways   []gateway
	containers []Container
	// stations are the ways to the hardware addresses behind gateways.
	stations map[fastpathStation]fastpathExit
	// names are those of the bridges and ports, by index.
	names map[int]string
}

// gateway is a device that leads to addresses of our subnet.
type gateway struct {
	index int
	name  string
	kind  gatewayKind
	mac   MAC
	below int // of a macvlan device: index of the device below
}

type gatewayKind int

const (
	otherDevice   gatewayKind = iota
	wholeDevice               // takes super-packets of a tunnel whole
	bridgeDevice              // with an address of the subnet
	vlanBridge                // likewise; it filters VLANs
	macvlanDevice             // of mode bridge
)

// discover reads gateways, ports, neighbours and forwarding entries. A container
// is a neighbour at a bridge that has the gateway of our subnet, with a hardware
// address that the bridge has learned at a port. The other end of the port must
// be in another network namespace, where bpf_redirect_peer can deliver.
func discover(h *netlink.Handle, subnet netip.Prefix) (topology, error) {
	t := topology{names: make(map[int]string), stations: make(map[fastpathStation]fastpathExit)}
	links, err := rtnl.Links(h)
	if err != nil {
		return t, err
	}
	if t.gateways, err = gatewaysOf(h, links, subnet); err != nil {
		return t, err
	}
	bridges := make(map[int]bool)
	for _, g := range t.gateways {
		if g.kind == bridgeDevice || g.kind == vlanBridge {
			t.names[g.index] = g.name
		}
		bridges[g.index] = g.kind == bridgeDevice
	}
	ports := make(map[int]netlink.LinkAttrs)
	for _, l := range links {
		if a := l.Attrs(); bridges[a.MasterIndex] {
			t.names[a.Index] = a.Name
			if l.Type() == "veth" && a.NetNsID >= 0 && a.Flags&net.FlagUp != 0 {
				ports[a.Index] = *a
			}
		}
	}
	if err := t.addStations(h); err != nil {
		return t, err
	}
	for _, g := range t.gateways {
		if g.kind == bridgeDevice {
			if err := t.addContainers(h, g, ports, subnet); err != nil {
				return t, err
			}
		}
	}
	slices.SortFunc(t.containers, func(a, b Container) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return t, nil
}

// gatewaysOf returns the devices with an address or a route of the subnet.
func gatewaysOf(h *netlink.Handle, links []netlink.Link, subnet netip.Prefix) (gateways []gateway, err error) {
	addrs, err := rtnl.RetryDump("addresses", func() ([]netlink.Addr, error) { return h.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, err
	}
	routes, err := rtnl.RetryDump("routes", func() ([]netlink.Route, error) { return h.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return nil, err
	}
	within := func(n *net.IPNet) bool {
		if n == nil {
			return false
		}
		p := netdev.Prefix(*n)
		return subnet.Contains(p.Addr()) && p.Bits() >= subnet.Bits()
	}
	addressed, routed := make(map[int]bool), make(map[int]bool)
	for _, a := range addrs {
		if subnet.Contains(netdev.Prefix(*a.IPNet).Addr()) {
			addressed[a.LinkIndex] = true
		}
	}
	for _, r := range routes {
		routed[r.LinkIndex] = routed[r.LinkIndex] || within(r.Dst)
	}
	for _, l := range links {
		if index := l.Attrs().Index; addressed[index] || routed[index] {
			gateways = append(gateways, gatewayOf(l, addressed[index]))
		}
	}
	return gateways, nil
}

func gatewayOf(l netlink.Link, addressed bool) gateway {
	a := l.Attrs()
	g := gateway{index: a.Index, name: a.Name}
	if len(a.HardwareAddr) != len(MAC{}) {
		return g
	}
	g.mac = MAC(a.HardwareAddr)
	switch l := l.(type) {
	case *netlink.Veth, *netlink.Netkit:
		g.kind = wholeDevice
	case *netlink.Bridge:
		switch {
		case !addressed:
		case l.VlanFiltering != nil && *l.VlanFiltering:
			g.kind = vlanBridge
		default:
			g.kind = bridgeDevice
		}
	case *netlink.Macvlan:
		if l.Mode == netlink.MACVLAN_MODE_BRIDGE {
			g.kind, g.below = macvlanDevice, a.ParentIndex
		}
	}
	return g
}

// addStations reads the forwarding entries of bridges, and the addresses that
// macvlan devices have added to the device below, of all network namespaces
// (macvlan_open in drivers/net/macvlan.c).
func (t *topology) addStations(h *netlink.Handle) error {
	entries, err := rtnl.RetryDump("forwarding entries", func() ([]netlink.Neigh, error) {
		return h.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE})
	})
	if err != nil {
		return err
	}
	ambiguous := make(map[fastpathStation]bool) // at several ports
	for _, e := range entries {
		if len(e.HardwareAddr) != len(MAC{}) || e.HardwareAddr[0]&1 != 0 { // a group
			continue
		}
		for _, g := range t.gateways {
			s := fastpathStation{Bridge: uint32(g.index), Mac: MAC(e.HardwareAddr)}
			way := fastpathExit{Index: uint32(e.LinkIndex)}
			switch {
			// Permanent entries are of the port's own address.
			case g.kind == bridgeDevice && e.MasterIndex == g.index && e.State&netlink.NUD_PERMANENT == 0:
				if known, ok := t.stations[s]; ok && known != way {
					ambiguous[s] = true
				}
			case g.kind == macvlanDevice && e.LinkIndex == g.below && e.Flags&netlink.NTF_SELF != 0:
				way.Flags = redirectIngress
			default:
				continue
			}
			t.stations[s] = way
		}
	}
	maps.DeleteFunc(t.stations, func(s fastpathStation, _ fastpathExit) bool { return ambiguous[s] })
	return nil
}

// redirectIngress is BPF_F_INGRESS of linux/bpf.h.
const redirectIngress = 1

// usable are the states of a neighbour that the kernel sends to without asking
// first (NUD_VALID of net/neighbour.h).
const usable = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE | netlink.NUD_PROBE | netlink.NUD_STALE | netlink.NUD_DELAY

func (t *topology) addContainers(h *netlink.Handle, b gateway, ports map[int]netlink.LinkAttrs, subnet netip.Prefix) error {
	neighbours, err := rtnl.RetryDump("neighbours", func() ([]netlink.Neigh, error) { return h.NeighList(b.index, unix.AF_INET) })
	if err != nil {
		return err
	}
	for _, n := range neighbours {
		ip, ok := netip.AddrFromSlice(n.IP.To4())
		if !ok || !subnet.Contains(ip) || n.State&usable == 0 || len(n.HardwareAddr) != len(MAC{}) {
			continue
		}
		mac := MAC(n.HardwareAddr)
		port, ok := ports[int(t.stations[fastpathStation{Bridge: uint32(b.index), Mac: mac}].Index)]
		if !ok || mac == b.mac {
			continue
		}
		t.containers = append(t.containers, Container{
			Addr: ip, MAC: mac, Port: port.Index, PortMTU: port.MTU, Bridge: b.index, Gateway: b.mac,
		})
	}
	return nil
}
