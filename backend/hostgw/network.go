package hostgw

import (
	"context"
	"errors"
	"fmt"
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
const dataPath = "routes"

// network is the backend at work for one lease.
type network struct {
	config backend.Config
	keeper *rtnl.Keeper

	mu    sync.Mutex // guards peers
	peers map[netip.Prefix]netip.Addr
}

func (n *network) MTU() int { return n.config.Uplink.MTU }

func (n *network) Apply(events []subnet.Event) {
	n.keeper.Set(n.learn(events))
	if err := n.keeper.Begin(); err != nil {
		ratelog.Errorf("set routes: %v", err) // and Run goes on trying
	}
}

// learn takes events into the set of peers, and returns what they change.
func (n *network) learn(events []subnet.Event) map[netip.Prefix]rtnl.State {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := make(map[netip.Prefix]rtnl.State, len(events))
	for _, e := range events {
		dst := e.Lease.Subnet
		if e.Type == subnet.Removed {
			delete(n.peers, dst)
			changed[dst] = rtnl.State{}
			continue
		}
		n.peers[dst] = e.Lease.Attrs.PublicIP
		changed[dst] = rtnl.State{Routes: []rtnl.Route{{Dst: dst, Via: e.Lease.Attrs.PublicIP, Dev: n.config.Uplink.Name}}}
	}
	return changed
}

func (n *network) Run(ctx context.Context) error {
	log.Infof("carry packets backend=%s iface=%s mtu=%d", Type, n.config.Uplink.Name, n.MTU())
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
	s := backend.Stats{DataPath: dataPath, Reason: "the kernel routes by " + n.config.Uplink.Name}
	for _, dst := range slices.SortedFunc(maps.Keys(n.peers), netip.Prefix.Compare) {
		p := backend.PeerStats{Subnet: dst, PublicIP: n.peers[dst], Uncounted: true}
		if r := refused[dst]; r != nil {
			p.Problem = problem(r)
		}
		s.Peers = append(s.Peers, p)
	}
	return s
}

func (n *network) Check() error { return n.keeper.Check() }

// problem says what an operator can do about a refusal.
func problem(r *rtnl.Refusal) string {
	if errors.Is(r, rtnl.ErrNotOnLink) {
		return fmt.Sprintf("%v is not on the link of %s; host-gw needs that, vxlan with DirectRouting does not", r.Route.Via, r.Route.Dev)
	}
	return r.Err.Error()
}

// Close leaves the routes to the kernel.
func (n *network) Close() error { return n.keeper.Close() }
