package vxlan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"sync"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// dataPath is the data path's name in the status.
const dataPath = "vxlan"

// network is the backend at work for one family of one lease.
type network struct {
	options options
	device  *device
	lock    io.Closer // of the device's name
	// reconciler keeps the device and what leads to the peers.
	reconciler *rtnl.Reconciler

	mu      sync.Mutex // guards what follows, and the order of changes
	applied bool       // the first set of peers
	peers   map[netip.Prefix]*peer
	macs    holders
	onLink  []netip.Prefix // the uplink's networks, with DirectRouting
}

// peer is a lease, decoded.
type peer struct {
	subnet   netip.Prefix
	publicIP netip.Addr
	mac      rtnl.MAC
	// fault is the reason for which the kernel gets no entries for the peer.
	fault error
	// displaced: another host has its MAC.
	displaced bool
}

// holders maps each MAC to the host that has it. The kernel forwards frames for a
// MAC to one host. If leases of two hosts have the same MAC, as after one was
// copied, the first keeps it. One host may have several subnets.
type holders map[rtnl.MAC]holder

type holder struct {
	host    netip.Addr
	subnets int
}

// take gives mac to host for one more subnet, and reports whether host has it.
func (h holders) take(mac rtnl.MAC, host netip.Addr) bool {
	now, held := h[mac]
	if held && now.host != host {
		return false
	}
	h[mac] = holder{host, now.subnets + 1}
	return true
}

// give undoes one take, and reports whether the MAC is free.
func (h holders) give(mac rtnl.MAC) bool {
	now := h[mac]
	if now.subnets > 1 {
		h[mac] = holder{now.host, now.subnets - 1}
		return false
	}
	delete(h, mac)
	return true
}

// MTU implements backend.Network.
func (n *network) MTU() int { return n.device.mtu }

// Apply implements backend.Network. The first events have all peers.
func (n *network) Apply(events []subnet.Event) {
	all := n.update(events)
	if all == nil {
		return
	}
	if err := n.reconciler.Reset(all); err != nil {
		ratelog.Errorf("set up peers: %v", err) // Run tries again
	}
}

// update changes the set of peers and the kernel. The first time it returns the
// changes, and leaves the kernel to the caller: Reset calls prepare, which
// locks mu.
func (n *network) update(events []subnet.Event) map[netip.Prefix]rtnl.State {
	n.mu.Lock()
	defer n.mu.Unlock()
	changes := make(map[netip.Prefix]rtnl.State, len(events))
	for _, e := range events {
		n.drop(e.Subnet(), changes)
		if e.Type == subnet.Added {
			n.put(n.read(e.Lease), changes)
		}
	}
	if !n.applied {
		n.applied = true
		return changes
	}
	n.reconciler.Update(changes)
	return nil
}

// put makes p a peer, and adds the change for the kernel.
func (n *network) put(p *peer, changed map[netip.Prefix]rtnl.State) {
	if p.fault == nil && !n.macs.take(p.mac, p.publicIP) {
		p.fault, p.displaced = fmt.Errorf("its MAC %v is that of %v", p.mac, n.macs[p.mac].host), true
	}
	if p.fault != nil {
		ratelog.Errorf("skip peer subnet=%v public_ip=%v reason=%q", p.subnet, p.publicIP, p.fault)
	}
	n.peers[p.subnet] = p
	changed[p.subnet] = n.state(p)
}

// drop removes the peer with that subnet, if there is one. A MAC that becomes free
// goes to a peer that was displaced.
func (n *network) drop(dst netip.Prefix, changed map[netip.Prefix]rtnl.State) {
	p := n.peers[dst]
	if p == nil {
		return
	}
	delete(n.peers, dst)
	changed[dst] = rtnl.State{}
	if p.fault != nil || !n.macs.give(p.mac) {
		return
	}
	for _, next := range slices.SortedFunc(maps.Keys(n.peers), netip.Prefix.Compare) {
		if q := n.peers[next]; q.displaced && q.mac == p.mac {
			q.fault, q.displaced = nil, false
			n.put(q, changed)
		}
	}
}

// read decodes a lease.
func (n *network) read(l *subnet.Lease) *peer {
	f := n.device.family
	p := &peer{subnet: l.SubnetOf(f)}
	if p.publicIP, p.fault = backend.PeerAddr(l, f); p.fault != nil {
		return p
	}
	var data leaseData
	if p.fault = json.Unmarshal(l.Attrs.Data(f), &data); p.fault != nil {
		p.fault = fmt.Errorf("decode %s %q: %w", backend.DataKey(f), l.Attrs.Data(f), p.fault)
		return p
	}
	if p.mac, p.fault = parseMAC(data.VtepMAC); p.fault != nil {
		return p
	}
	switch {
	case data.VNI != nil && *data.VNI != n.options.VNI:
		p.fault = fmt.Errorf("its VNI is %d, ours is %d", *data.VNI, n.options.VNI)
	case p.mac == n.device.mac:
		p.fault = fmt.Errorf("it has our own MAC %v; if it is a copy of this host, stop flannel there, delete %s and node-id in its -state-dir, and start it", p.mac, n.device.name)
	}
	return p
}

// state returns the kernel's entries for a peer.
func (n *network) state(p *peer) rtnl.State {
	if p.fault != nil {
		return rtnl.State{}
	}
	if slices.ContainsFunc(n.onLink, func(l netip.Prefix) bool { return l.Contains(p.publicIP) }) {
		// OnLink distinguishes it from a route of host-gw. The peer is on the link.
		return rtnl.State{Routes: []rtnl.Route{{Dst: p.subnet, Via: p.publicIP, Dev: n.device.uplink, Kind: rtnl.OnLink}}}
	}
	return rtnl.State{
		Routes: []rtnl.Route{{Dst: p.subnet, Via: p.subnet.Addr(), Dev: n.device.name, Kind: rtnl.OnLink}},
		Neighs: []rtnl.Neigh{{IP: p.subnet.Addr(), MAC: p.mac}, {IP: p.publicIP, MAC: p.mac, FDB: true}},
	}
}

// prepare makes the device as it should be. If DirectRouting is on, it reads which
// peers are on the uplink's link. Each pass calls it first.
func (n *network) prepare() error {
	if err := n.device.ensure(); err != nil {
		return err
	}
	if !n.options.DirectRouting {
		return nil
	}
	onLink, err := n.device.linkPrefixes()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(onLink, n.onLink) {
		return nil
	}
	n.onLink = onLink
	all := make(map[netip.Prefix]rtnl.State, len(n.peers))
	for dst, p := range n.peers {
		all[dst] = n.state(p)
	}
	n.reconciler.Update(all)
	return nil
}

// Run implements backend.Network.
func (n *network) Run(ctx context.Context) error {
	log.Infof("carry packets backend=%s device=%s local=%v:%d mtu=%d direct_routing=%v",
		Type, n.device.name, n.device.local, n.options.Port, n.device.mtu, n.options.DirectRouting)
	return n.reconciler.Run(ctx)
}

// DataPath implements backend.Network.
func (n *network) DataPath() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return dataPath
}

// Encapsulation implements backend.Network. With DirectRouting, packets to some peers
// leave by the uplink itself, and have none.
func (*network) Encapsulation() backend.Encapsulation { return backend.WholeByKernel }

// Stats implements backend.Network.
func (n *network) Stats() backend.Stats {
	refused := n.reconciler.Refusals()
	n.mu.Lock()
	defer n.mu.Unlock()
	return backend.Stats{
		DataPath: dataPath, Reason: "the kernel carries packets by " + n.device.name,
		Peers: backend.UncountedPeers(n.peers, func(dst netip.Prefix, p *peer) (netip.Addr, error) {
			if r := refused[dst]; r != nil && p.fault == nil {
				return p.publicIP, r.Err
			}
			return p.publicIP, p.fault
		}),
	}
}

// Check implements backend.Checker.
func (n *network) Check() error { return errors.Join(n.device.check(), n.reconciler.Check()) }

// Close implements backend.Network. Device and routes stay in the kernel.
func (n *network) Close() error {
	var err error
	if n.reconciler != nil {
		err = n.reconciler.Close()
	}
	return errors.Join(err, n.lock.Close())
}
