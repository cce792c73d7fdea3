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

// dataPath is what the status calls the way of packets.
const dataPath = "vxlan"

// network is the backend at work for one lease.
type network struct {
	config  backend.Config
	options options
	device  *device
	claim   io.Closer
	keeper  *rtnl.Keeper

	mu     sync.Mutex // guards what follows, and the order of changes
	peers  map[netip.Prefix]*peer
	macs   holders
	onLink []netip.Prefix // of the uplink, where DirectRouting asks for it
}

// peer is what a lease says.
type peer struct {
	subnet   netip.Prefix
	publicIP netip.Addr
	mac      rtnl.MAC
	// fault is why the kernel is told nothing of it.
	fault error
	// displaced: another host has its MAC.
	displaced bool
}

func (n *network) MTU() int { return n.device.mtu }

func (n *network) Apply(events []subnet.Event) {
	n.learn(events)
	if err := n.keeper.Begin(); err != nil {
		ratelog.Errorf("set up peers: %v", err) // and Run goes on trying
	}
}

// learn takes events into the set of peers, and tells the kernel what they
// change.
func (n *network) learn(events []subnet.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := make(map[netip.Prefix]rtnl.State, len(events))
	for _, e := range events {
		n.drop(e.Lease.Subnet, changed)
		if e.Type == subnet.Added {
			n.put(n.read(e.Lease), changed)
		}
	}
	n.keeper.Set(changed)
}

// put makes p a peer, and notes the change for the kernel.
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

// drop takes away the peer with that subnet, if there is one. A MAC that is
// free then goes to one who waits for it.
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
	p := &peer{subnet: l.Subnet, publicIP: l.Attrs.PublicIP}
	var data leaseData
	if p.fault = json.Unmarshal(l.Attrs.BackendData, &data); p.fault != nil {
		p.fault = fmt.Errorf("decode BackendData %q: %w", l.Attrs.BackendData, p.fault)
		return p
	}
	if p.mac, p.fault = parseMAC(data.VtepMAC); p.fault != nil {
		return p
	}
	switch {
	case data.VNI != nil && *data.VNI != n.options.VNI:
		p.fault = fmt.Errorf("its VNI is %d, ours is %d", *data.VNI, n.options.VNI)
	case p.mac == n.device.mac:
		p.fault = fmt.Errorf("it has our own MAC %v; if it is a copy of this host, delete node-id in its -state-dir and restart flannel there", p.mac)
	}
	return p
}

// state is what the kernel must know of a peer.
func (n *network) state(p *peer) rtnl.State {
	if p.fault != nil {
		return rtnl.State{}
	}
	if slices.ContainsFunc(n.onLink, func(l netip.Prefix) bool { return l.Contains(p.publicIP) }) {
		// OnLink, which tells it from host-gw's route: we have seen to that.
		return rtnl.State{Routes: []rtnl.Route{{Dst: p.subnet, Via: p.publicIP, Dev: n.device.uplink, Kind: rtnl.OnLink}}}
	}
	return rtnl.State{
		Routes: []rtnl.Route{{Dst: p.subnet, Via: p.subnet.Addr(), Dev: n.device.name, Kind: rtnl.OnLink}},
		Neighs: []rtnl.Neigh{{Dev: n.device.name, IP: p.subnet.Addr(), MAC: p.mac}},
		FDB:    []rtnl.FDB{{Dev: n.device.name, MAC: p.mac, Dst: p.publicIP}},
	}
}

// prepare is called before each pass.
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
	n.keeper.Set(all)
	return nil
}

func (n *network) Run(ctx context.Context) error {
	log.Infof("carry packets backend=%s device=%s local=%v:%d mtu=%d direct_routing=%v",
		Type, n.device.name, n.device.local, n.options.Port, n.device.mtu, n.options.DirectRouting)
	return n.keeper.Run(ctx)
}

// DataPath implements backend.Network.
func (n *network) DataPath() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return dataPath
}

func (n *network) Stats() backend.Stats {
	refused := n.keeper.Refusals()
	n.mu.Lock()
	defer n.mu.Unlock()
	s := backend.Stats{DataPath: dataPath, Reason: "the kernel carries packets by " + n.device.name}
	for _, dst := range slices.SortedFunc(maps.Keys(n.peers), netip.Prefix.Compare) {
		p := n.peers[dst]
		stats := backend.PeerStats{Subnet: dst, PublicIP: p.publicIP, Uncounted: true}
		if p.fault != nil {
			stats.Problem = p.fault.Error()
		} else if r := refused[dst]; r != nil {
			stats.Problem = r.Err.Error()
		}
		s.Peers = append(s.Peers, stats)
	}
	return s
}

func (n *network) Check() error { return errors.Join(n.device.check(), n.keeper.Check()) }

// Close leaves device and routes to the kernel.
func (n *network) Close() error {
	return errors.Join(n.keeper.Close(), n.device.Close(), n.claim.Close())
}
