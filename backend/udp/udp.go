// Package udp is the classic backend: a packet for a container on another host
// travels as it is, as the payload of a UDP datagram to that host.
//
//	container → bridge → route → flannel0 (TUN) ─► this package ─► UDP :8285
//	                                                                   │
//	container ← bridge ← route ← flannel0 (TUN) ◄─ this package ◄──────┘
//
// Glossary: the inner packet is the container's, the outer datagram the one
// that carries it; a peer is a host with a lease; a data path is one way of
// moving packets between the device and the wire. All data paths share one
// wire format (one bare packet a datagram, no header), one table of
// peers, and the counters.
//
// Packets and datagrams are of either family, in any mix. A receiver distinguishes
// packets by their version field. Datagrams over IPv6 have a UDP checksum, which the
// kernel or the network card computes; those between the programs of two kernel data
// paths have none (docs/protocol.md).
package udp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// DefaultPort is the UDP port of all generations of flannel if none is configured.
const DefaultPort = 8285

// options is the configuration's Backend object: {"Type": "udp", "Port": 8285, "Mode":
// "auto"}.
type options struct {
	Port int
	// Mode is the family of the datagrams; see backend.Config.Outer.
	Mode string
}

func parseOptions(c backend.Config) (options, error) {
	o := options{Mode: backend.ModeAuto}
	if err := c.Decode(&o); err != nil {
		return o, err
	}
	if o.Port < 0 || o.Port > math.MaxUint16 {
		return o, fmt.Errorf("Backend.Port %d is not a port, 1 to %d", o.Port, math.MaxUint16)
	}
	if known := []string{backend.ModeAuto, backend.ModeIPv4, backend.ModeIPv6}; !slices.Contains(known, o.Mode) {
		return o, fmt.Errorf("Backend.Mode %q is not known; known are %s", o.Mode, strings.Join(known, ", "))
	}
	o.Port = cmp.Or(c.Port, o.Port, DefaultPort)
	return o, nil
}

// New checks the options and the uplinks.
func New(c backend.Config) (backend.Backend, error) {
	o, err := parseOptions(c)
	if err != nil {
		return nil, err
	}
	outer, err := c.Outer(o.Mode)
	if err != nil {
		return nil, err
	}
	for _, f := range c.Inside() {
		if err := checkMTU(c, f, outer); err != nil {
			return nil, err
		}
		// One route leads all of Network into the tunnel.
		if err := c.CheckUnderlay("Network", c.Of(f).Network); err != nil {
			return nil, err
		}
	}
	if c.DataPath == kernelName && c.Uplink.VRF != "" {
		return nil, fmt.Errorf("-udp-datapath %s: %w; leave the flag out", kernelName, errInVRF(c.Uplink))
	}
	paths, err := choosePaths(c.DataPath)
	if err != nil {
		return nil, err
	}
	return &udpBackend{config: c, outer: outer, port: uint16(o.Port), paths: paths}, nil
}

// checkMTU returns an error if the datagrams do not hold the least packets of a family.
func checkMTU(c backend.Config, inner inet.Family, outer []inet.Family) error {
	for _, f := range outer {
		up := c.Of(f).Uplink
		if mtu := up.MTU - overhead(f); mtu < inner.MinMTU() {
			return fmt.Errorf("MTU %d of interface %s leaves %d bytes inside UDP over %v; %v needs %d", up.MTU, up.Name, mtu, f, inner, inner.MinMTU())
		}
	}
	return nil
}

type udpBackend struct {
	config backend.Config
	outer  []inet.Family // of our datagrams
	port   uint16
	paths  []pathKind // in the order to try
}

// Attrs has no BackendType: udp predates the field. If the kernel data path of an
// earlier run is at work, Attrs names it: until this run is up, other hosts must
// send to the programs and not to a socket.
func (b *udpBackend) Attrs() subnet.Attrs {
	var a subnet.Attrs
	for _, f := range b.outer {
		a.SetFamily(f, b.config.Of(f).PublicIP, nil)
	}
	if b.paths[0].name != kernelName {
		return a
	}
	config := tableConfig{Config: b.config}
	at, err := kernelAtWork(config.networks())
	if at {
		var taken pairs
		if taken, _, err = kernelPairs(b.config, b.outer); err == nil {
			a.DataPath, a.DataPathPairs = kernelName, taken.String()
		}
	}
	if err != nil {
		log.Warningf("look for a kernel data path of an earlier run: %v", err)
	}
	return a
}

// Up implements backend.Backend. A device that another process is attached to is
// deleted by the first try.
func (b *udpBackend) Up(ctx context.Context, l subnet.Lease) (backend.Network, error) {
	n, err := b.up(ctx, l, nil)
	if errors.Is(err, errForeignQueue) {
		n, err = b.up(ctx, l, nil)
	}
	return n, err
}

// up sets the network up with the data path that the one before has left, nil for none.
func (b *udpBackend) up(ctx context.Context, l subnet.Lease, before *kept) (backend.Network, error) {
	p := &pathConfig{
		tableConfig: tableConfig{Config: b.config, outer: b.outer, port: b.port},
		drops:       new(drops), named: len(b.paths) == 1,
	}
	for _, f := range b.config.Inside() {
		p.own[f] = l.SubnetOf(f)
	}
	for _, f := range b.outer {
		local, err := localAddr(b.config.Of(f).PublicIP, b.config.Of(f).Uplink.Addr)
		if err != nil {
			return nil, err
		}
		p.locals[f] = netip.AddrPortFrom(local, b.port)
	}
	p.table = newTable(p.tableConfig)
	n := &network{pathConfig: p, published: l.Attrs}
	p.announce = n.announceDataPath
	if err := n.open(ctx, b.paths, before); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// localAddr returns the address to receive at and send from. It is publicIP, the
// address that peers know, if this host has it. Behind NAT it is the uplink's.
func localAddr(publicIP, uplink netip.Addr) (netip.Addr, error) {
	if publicIP == uplink {
		return uplink, nil
	}
	addrs, err := rtnl.RetryDump("this host's addresses", func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if a.IP.Equal(publicIP.AsSlice()) {
			return publicIP, nil
		}
	}
	return uplink, nil
}

// open opens sockets, data path and device, in the network namespace of the
// calling thread. The caller closes n after an error.
func (n *network) open(ctx context.Context, kinds []pathKind, before *kept) (err error) {
	if n.mtus, err = openPathMTUs(n.locals, [2]string{n.Uplink.VRF, n.IPv6Uplink.VRF}); err != nil {
		return err
	}
	n.closers = append(n.closers, n.mtus.close)
	if n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	n.closers = append(n.closers, func() error { n.links.Close(); return nil })
	if err := n.openRoutes(); err != nil {
		return err
	}
	if err := n.openFirst(ctx, kinds, before); err != nil {
		return err
	}
	return n.openDevice()
}

func (n *network) openRoutes() (err error) {
	if n.routes, err = newRouteFollower(n.table, n.Reconciled); err == nil {
		n.closers = append(n.closers, n.routes.close)
	}
	return err
}
