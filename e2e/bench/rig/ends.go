package rig

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/subnetfile"
)

// bridge is the name of the containers' bridge on each host, as Docker has it.
const bridge = "docker0"

// EndKind is where the load runs.
type EndKind struct {
	Name, About string
	// attach makes the ends on hosts that have the bridge.
	attach func(p *Pair, envs [2]subnetfile.Env) ([2]load.End, error)
}

// EndKinds returns all kinds of ends, the usual one first.
func EndKinds() []EndKind {
	return []EndKind{
		{"container", "a container behind a bridge on each host", attachContainers},
		{"host", "the bridge's address of each host", attachHosts},
		{"nested", "a VXLAN device of its own in a container on each host", attachNested},
		{"local", "two containers behind the bridge of one host", attachLocal},
	}
}

// attachHosts needs nothing: the bridge has the address.
func attachHosts(p *Pair, envs [2]subnetfile.Env) (ends [2]load.End, err error) {
	for i, h := range p.hosts {
		ends[i] = load.End{Host: h, Addr: firstAddr(p.setting.subnet(envs[i])).Addr()}
	}
	return ends, nil
}

func attachContainers(p *Pair, envs [2]subnetfile.Env) (ends [2]load.End, err error) {
	for i, h := range p.hosts {
		ends[i] = p.container(h, envs[i], 1)
	}
	return ends, nil
}

func attachLocal(p *Pair, envs [2]subnetfile.Env) (ends [2]load.End, err error) {
	for i := range ends {
		ends[i] = p.container(p.hosts[0], envs[0], i+1)
	}
	return ends, nil
}

// container makes container number n of a host.
func (p *Pair) container(h *netnstest.Host, env subnetfile.Env, n int) load.End {
	gateway := firstAddr(p.setting.subnet(env))
	addr := netip.PrefixFrom(nth(gateway.Addr(), n), gateway.Bits())
	p.rig.containers++
	c := h.Container(fmt.Sprintf("c%d", p.rig.containers), bridge, addr, gateway.Addr(), env.MTU)
	return load.End{Host: c, Addr: addr.Addr()}
}

const (
	nestedDevice = "vxlan42"
	nestedVNI    = 42
	// nestedPort is the assigned one (RFC 7348 section 5), which is not that of the
	// hosts' VXLAN.
	nestedPort = 4789
)

// nestedNetworks are those of the overlay between the containers, by family. They are
// reserved for benchmarks (RFC 2544 section C.2.2, RFC 5180 section 8).
var nestedNetworks = [...]netip.Prefix{
	inet.IPv4: netip.MustParsePrefix("198.18.0.0/24"),
	inet.IPv6: netip.MustParsePrefix("2001:2::/64"),
}

// attachNested makes a VXLAN device in each container, whose peer is the other
// container.
func attachNested(p *Pair, envs [2]subnetfile.Env) ([2]load.End, error) {
	ends, err := attachContainers(p, envs)
	if err != nil {
		return ends, err
	}
	outer := [2]netip.Addr{ends[0].Addr, ends[1].Addr}
	f := p.setting.Inside
	for i := range ends {
		addr := netip.PrefixFrom(nth(nestedNetworks[f].Addr(), i+1), nestedNetworks[f].Bits())
		if err := addNested(ends[i].Host, outer[i], outer[1-i], envs[i].MTU-vxlanOverhead(f)); err != nil {
			return ends, err
		}
		ends[i].AddAddr(nestedDevice, addr)
		ends[i].Up(nestedDevice)
		ends[i].Addr = addr.Addr()
	}
	return ends, nil
}

func addNested(c *netnstest.Host, local, remote netip.Addr, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nestedDevice, mtu
	dev := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: nestedVNI, Port: nestedPort,
		SrcAddr: net.IP(local.AsSlice()), Group: net.IP(remote.AsSlice())}
	if err := c.Netlink().LinkAdd(dev); err != nil {
		return fmt.Errorf("add %s to container: %w", nestedDevice, err)
	}
	return nil
}
