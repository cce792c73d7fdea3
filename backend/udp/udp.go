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
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// DefaultPort is where every generation listens unless told otherwise.
const DefaultPort = 8285

// minMTU is the smallest MTU of a link that carries IPv4 (RFC 791 section 3.2).
const minMTU = 68

// New checks the options, of which there is one: {"Type": "udp", "Port": 8285}.
func New(c backend.Config) (backend.Backend, error) {
	var options struct{ Port int }
	if err := c.Decode(&options); err != nil {
		return nil, err
	}
	if options.Port < 0 || options.Port > math.MaxUint16 {
		return nil, fmt.Errorf("Backend.Port %d is not a port, 1 to %d", options.Port, math.MaxUint16)
	}
	port := DefaultPort
	for _, p := range []int{c.Port, options.Port} {
		if p != 0 {
			port = p
			break
		}
	}
	if mtu := c.Uplink.MTU - encapsulation; mtu < minMTU {
		return nil, fmt.Errorf("MTU %d of interface %s leaves %d bytes inside UDP; IPv4 needs %d", c.Uplink.MTU, c.Uplink.Name, mtu, minMTU)
	}
	for _, a := range []netip.Addr{c.Uplink.Addr, c.PublicIP} {
		// What is sent there would come back into the tunnel.
		if c.Network.Contains(a) {
			return nil, fmt.Errorf("check Network %v: it contains %v, this host's address for other hosts (interface %s); choose a Network that the hosts' own addresses lie outside of", c.Network, a, c.Uplink.Name)
		}
	}
	paths, err := choosePaths(c.DataPath)
	if err != nil {
		return nil, err
	}
	return &udpBackend{config: c, port: uint16(port), paths: paths}, nil
}

type udpBackend struct {
	config backend.Config
	port   uint16
	paths  []pathKind // to try in turn
}

// Attrs has no BackendType: udp predates the field. It names the kernel data
// path where that of an earlier run is at work: what the others send to it
// until we are up must not be sent to a socket that is not there yet.
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

func (b *udpBackend) Up(ctx context.Context, l subnet.Lease) (_ backend.Network, err error) {
	local, err := localAddr(b.config.PublicIP, b.config.Uplink.Addr)
	if err != nil {
		return nil, err
	}
	p := &plane{
		network: b.config.Network, subnetLen: b.config.SubnetLen, own: l.Subnet, uplink: b.config.Uplink,
		local: netip.AddrPortFrom(local, b.port),
		table: newTable(b.config.Network, b.config.SubnetLen, l.Subnet),
		drops: new(drops),
	}
	if p.mtus, err = openPathMTUs(p.local.Addr()); err != nil {
		return nil, err
	}
	n := &network{plane: p, published: l.Attrs, reconciled: b.config.Reconciled}
	if n.link, err = openLink(n); err != nil {
		return nil, errors.Join(err, p.mtus.close())
	}
	if err := n.openFirst(ctx, b.paths); err != nil {
		return nil, errors.Join(err, n.link.close(), p.mtus.close())
	}
	if err := n.link.configure(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// persistent is a device that outlives the process.
type persistent struct {
	name string
	on   bool
}

// plane is what a data path works with.
type plane struct {
	network, own netip.Prefix
	subnetLen    int
	uplink       uplink.Uplink
	// device asks for one that outlives the process; zero: a new one.
	device persistent
	// local is the address and port that we receive at and send from.
	local netip.AddrPort
	table *table
	drops *drops
	mtus  *pathMTUs
}
