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
// wire format (one bare IPv4 packet a datagram, no header), one table of
// peers, and the counters.
package udp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/subnet"
)

// DefaultPort is the UDP port of all generations of flannel if none is configured.
const DefaultPort = 8285

// New checks the options. There is one: {"Type": "udp", "Port": 8285}.
func New(c backend.Config) (backend.Backend, error) {
	var options struct{ Port int }
	if err := c.Decode(&options); err != nil {
		return nil, err
	}
	if options.Port < 0 || options.Port > math.MaxUint16 {
		return nil, fmt.Errorf("Backend.Port %d is not a port, 1 to %d", options.Port, math.MaxUint16)
	}
	if mtu := innerMTU(c.Uplink); mtu < backend.MinMTU {
		return nil, fmt.Errorf("MTU %d of interface %s leaves %d bytes inside UDP; IPv4 needs %d", c.Uplink.MTU, c.Uplink.Name, mtu, backend.MinMTU)
	}
	// One route leads all of Network into the tunnel.
	if err := c.CheckUnderlay("Network", c.Network); err != nil {
		return nil, err
	}
	if c.DataPath == kernelName && c.Uplink.VRF != "" {
		return nil, fmt.Errorf("-udp-datapath %s: %w; leave the flag out", kernelName, errInVRF(c.Uplink))
	}
	paths, err := choosePaths(c.DataPath)
	if err != nil {
		return nil, err
	}
	return &udpBackend{config: c, port: uint16(cmp.Or(c.Port, options.Port, DefaultPort)), paths: paths}, nil
}

type udpBackend struct {
	config backend.Config
	port   uint16
	paths  []pathKind // in the order to try
}

// Attrs has no BackendType: udp predates the field. If the kernel data path of an
// earlier run is at work, Attrs names it: until this run is up, other hosts must
// send to the programs and not to a socket.
func (b *udpBackend) Attrs() subnet.Attrs {
	a := subnet.Attrs{PublicIP: b.config.PublicIP}
	if b.paths[0].name != kernelName {
		return a
	}
	if at, err := kernelAtWork(b.config.Network); err != nil {
		log.Warningf("look for a kernel data path of an earlier run: %v", err)
	} else if at {
		a.DataPath = kernelName
	}
	return a
}

// Up implements backend.Backend. A device that another process is attached to is
// deleted by the first try.
func (b *udpBackend) Up(ctx context.Context, l subnet.Lease) (backend.Network, error) {
	n, err := b.up(ctx, l)
	if errors.Is(err, errForeignQueue) {
		n, err = b.up(ctx, l)
	}
	return n, err
}

func (b *udpBackend) up(ctx context.Context, l subnet.Lease) (backend.Network, error) {
	local, err := localAddr(b.config.PublicIP, b.config.Uplink.Addr)
	if err != nil {
		return nil, err
	}
	p := &pathConfig{
		Config: b.config, own: l.Subnet,
		local: netip.AddrPortFrom(local, b.port),
		table: newTable(b.config.Network, b.config.SubnetLen, l.Subnet),
		drops: new(drops), named: len(b.paths) == 1,
	}
	n := &network{pathConfig: p, published: l.Attrs}
	p.announce = n.announceDataPath
	if err := n.open(ctx, b.paths); err != nil {
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
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list this host's addresses: %w", err)
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
func (n *network) open(ctx context.Context, kinds []pathKind) (err error) {
	if n.mtus, err = openPathMTUs(n.local.Addr(), n.Uplink.VRF); err != nil {
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
	if err := n.openFirst(ctx, kinds); err != nil {
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
