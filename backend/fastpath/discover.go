package fastpath

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// topology is what the kernel has of containers.
type topology struct {
	gateways   []gateway
	containers []Container
	// neighbours are the hardware addresses that the host sends to by gateways, stations
	// the ways to them. A container may pretend any number of other addresses.
	neighbours map[fastpathStation]bool
	stations   map[fastpathStation]fastpathExit
	outer      []outer
	// names are those of the bridges and ports, by index. labels have name and group: rules
	// may select an interface by either.
	names, labels map[int]string
	// xdp are the devices with a program of XDP, by index.
	xdp map[int]bool
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

// discover reads gateways, ports, neighbours and forwarding entries. A container is a
// neighbour at a bridge that has the gateway of our subnet. The bridge must have learned
// the neighbour's hardware address at a port. The other end of the port must be in
// another network namespace, where bpf_redirect_peer can deliver.
func discover(h *netlink.Handle, c Config) (topology, error) {
	t := topology{
		names: make(map[int]string), labels: make(map[int]string), xdp: make(map[int]bool),
		neighbours: make(map[fastpathStation]bool), stations: make(map[fastpathStation]fastpathExit),
	}
	links, err := rtnl.Links(h)
	if err != nil {
		return t, err
	}
	routes, err := rtnl.Routes(h, inet.IPv4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return t, err
	}
	if t.gateways, err = gatewaysOf(h, links, routes, c.Subnet); err != nil {
		return t, err
	}
	t.outer = outerOf(links, routes, c)
	bridges := make(map[int]bool)
	for _, g := range t.gateways {
		if g.kind == bridgeDevice || g.kind == vlanBridge {
			t.names[g.index] = g.name
		}
		bridges[g.index] = g.kind == bridgeDevice
	}
	ports := make(map[int]bool)
	for _, l := range links {
		a := l.Attrs()
		_, isGateway := bridges[a.Index]
		if isGateway || t.isOuter(a.Index) || bridges[a.MasterIndex] {
			t.labels[a.Index] = fmt.Sprintf("%s group %d", a.Name, a.Group)
		}
		if a.Xdp != nil && a.Xdp.Attached {
			t.xdp[a.Index] = true
		}
		if bridges[a.MasterIndex] {
			t.names[a.Index] = a.Name
			if l.Type() == "veth" && a.NetNsID >= 0 && a.Flags&net.FlagUp != 0 {
				ports[a.Index] = true
			}
		}
	}
	neighbours, err := t.addNeighbours(h)
	if err != nil {
		return t, err
	}
	if err := t.addStations(h); err != nil {
		return t, err
	}
	for _, g := range t.gateways {
		if g.kind == bridgeDevice {
			t.addContainers(g, neighbours, ports, c.Subnet)
		}
	}
	slices.SortFunc(t.containers, func(a, b Container) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return t, nil
}

// gatewaysOf returns the devices with an address or a route of the subnet.
func gatewaysOf(h *netlink.Handle, links []netlink.Link, routes []netlink.Route, subnet netip.Prefix) (gateways []gateway, err error) {
	addrs, err := rtnl.RetryDump("addresses", func() ([]netlink.Addr, error) { return h.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, err
	}
	addressed, routed := make(map[int]bool), make(map[int]bool)
	for _, a := range addrs {
		if subnet.Contains(netdev.Prefix(*a.IPNet).Addr()) {
			addressed[a.LinkIndex] = true
		}
	}
	for _, r := range routes {
		routed[r.LinkIndex] = routed[r.LinkIndex] || within(r.Dst, subnet)
	}
	for _, l := range links {
		if index := l.Attrs().Index; addressed[index] || routed[index] {
			gateways = append(gateways, gatewayOf(l, addressed[index]))
		}
	}
	return gateways, nil
}

func within(n *net.IPNet, network netip.Prefix) bool {
	if n == nil {
		return false
	}
	p := netdev.Prefix(*n)
	return network.Contains(p.Addr()) && p.Bits() >= network.Bits()
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

// addStations reads the forwarding entries of bridges. It also reads the addresses that
// macvlan devices of all network namespaces have added to the device below (macvlan_open
// in drivers/net/macvlan.c).
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
			if !t.neighbours[s] {
				continue
			}
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

// addNeighbours returns the usable neighbours at gateways.
func (t *topology) addNeighbours(h *netlink.Handle) ([]netlink.Neigh, error) {
	all, err := rtnl.RetryDump("neighbours", func() ([]netlink.Neigh, error) { return h.NeighList(0, unix.AF_INET) })
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(n netlink.Neigh) bool {
		return n.State&usable == 0 || len(n.HardwareAddr) != len(MAC{}) ||
			!slices.ContainsFunc(t.gateways, func(g gateway) bool { return g.index == n.LinkIndex })
	})
	for _, n := range all {
		t.neighbours[fastpathStation{Bridge: uint32(n.LinkIndex), Mac: MAC(n.HardwareAddr)}] = true
	}
	return all, nil
}

func (t *topology) addContainers(b gateway, neighbours []netlink.Neigh, ports map[int]bool, subnet netip.Prefix) {
	for _, n := range neighbours {
		ip, ok := netip.AddrFromSlice(n.IP.To4())
		if !ok || !subnet.Contains(ip) || n.LinkIndex != b.index {
			continue
		}
		mac := MAC(n.HardwareAddr)
		port := int(t.stations[fastpathStation{Bridge: uint32(b.index), Mac: mac}].Index)
		if !ports[port] || mac == b.mac {
			continue
		}
		t.containers = append(t.containers, Container{Addr: ip, MAC: mac, Port: port, Bridge: b.index, Gateway: b.mac})
	}
}
