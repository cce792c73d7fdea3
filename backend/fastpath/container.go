package fastpath

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// MAC is an Ethernet address.
type MAC [6]byte

// Container is an address of a container at a port of a bridge.
type Container struct {
	Addr netip.Addr
	MAC  MAC
	// Port is the index of the host's end of the veth pair.
	Port int
	// Bridge is the index of the port's bridge, Gateway the bridge's own address.
	Bridge  int
	Gateway MAC
}

func (c Container) address() fastpathAddress {
	return fastpathAddress{Port: uint32(c.Port), Ip: be32(c.Addr)}
}

func (c Container) station() fastpathStation {
	return fastpathStation{Bridge: uint32(c.Bridge), Mac: c.MAC}
}

func (c Container) value() fastpathContainer {
	return fastpathContainer{Mac: c.MAC, Gateway: c.Gateway, Bridge: uint32(c.Bridge)}
}

func (c Container) port() fastpathPort {
	return fastpathPort{Index: uint32(c.Port)}
}

// table is what the kernel's maps have.
type table struct {
	containers map[fastpathAddress]fastpathContainer
	ports      map[fastpathStation]fastpathPort
	outer      map[uint32]uint8 // by index
}

func tableOf(s service) table {
	t := table{make(map[fastpathAddress]fastpathContainer), make(map[fastpathStation]fastpathPort), make(map[uint32]uint8)}
	for _, index := range s.outer {
		t.outer[uint32(index)] = 1
	}
	for _, c := range s.containers {
		t.containers[c.address()] = c.value()
		t.ports[c.station()] = c.port()
	}
	return t
}

// read returns the table that the kernel has.
func (p *programs) read() (table, error) {
	t := tableOf(service{})
	err := errors.Join(
		readMap(p.Containers, t.containers, func(c *fastpathContainer) { c.Used = 0 }),
		readMap(p.Ports, t.ports, func(p *fastpathPort) { p.Used = 0 }),
		readMap(p.OuterLinks, t.outer, func(*uint8) {}))
	return t, err
}

// readMap has clear take away the part of an entry that programs write.
func readMap[K comparable, V any](m *ebpf.Map, into map[K]V, clear func(*V)) error {
	var k K
	var v V
	entries := m.Iterate()
	for entries.Next(&k, &v) {
		clear(&v)
		into[k] = v
	}
	return entries.Err()
}

// service is what the programs serve.
type service struct {
	containers []Container
	outer      []int // by index
	detours    detours
}

// set makes the containers those that packets are exchanged with, and has super-packets
// take the detours. It attaches the programs to the ports and devices, and no others.
// What no longer holds is removed first: no packet goes to a container that has lost
// the address.
func (p *programs) set(s service) error {
	have, err := p.read()
	if err != nil {
		return fmt.Errorf("read containers of fast path: %w", err)
	}
	want := tableOf(s)
	if err := errors.Join(
		change(p.Containers, have.containers, want.containers),
		change(p.Ports, have.ports, want.ports),
		change(p.OuterLinks, have.outer, want.outer),
		p.setDetours(s.detours),
	); err != nil {
		return fmt.Errorf("change containers of fast path: %w", err)
	}
	if err := p.attachAll(want, s.detours); err != nil {
		return err
	}
	return p.attachDecap(len(s.containers) > 0)
}

// attachDecap has the tunnel's own program call ours, or not.
func (p *programs) attachDecap(on bool) error {
	m := p.tunnel.Decap
	if !on || m == nil {
		return Detach(m)
	}
	if err := m.Put(uint32(0), p.ToContainerL2); err != nil {
		return fmt.Errorf("attach fast path to the tunnel's program: %w", err)
	}
	return nil
}

func change[K, V comparable](m *ebpf.Map, have, want map[K]V) error {
	for k, v := range have {
		if w, ok := want[k]; ok && w == v {
			continue
		}
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	for k, w := range want {
		if v, ok := have[k]; ok && w == v {
			continue
		}
		if err := m.Put(k, w); err != nil {
			return err
		}
	}
	return nil
}

func (p *programs) attachAll(t table, d detours) error {
	want := make(map[hook]struct{})
	for _, port := range t.ports {
		for _, h := range p.portHooks(int(port.Index)) {
			want[h] = struct{}{}
		}
	}
	if len(want) > 0 {
		for index := range t.outer {
			want[p.hook(fastpathProgToContainer, int(index))] = struct{}{}
		}
	}
	for device := range d.devices {
		want[p.hook(fastpathProgWhole, int(device))] = struct{}{}
	}
	have, err := p.hooks()
	if err != nil {
		return err
	}
	for _, h := range have {
		if _, keep := want[h]; !keep {
			if err := p.detach(h); err != nil {
				return err
			}
		}
	}
	ids, err := p.ids()
	if err != nil {
		return err
	}
	for _, h := range slices.SortedFunc(maps.Keys(want), hook.before) {
		if err := p.attach(h, ids[h.program]); err != nil {
			return err
		}
	}
	return nil
}
