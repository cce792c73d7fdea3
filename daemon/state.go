package daemon

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/hostroute"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// state is the progress of one run. It is safe for concurrent use.
type state struct {
	// reading is held by the readers of a network, and by its removal.
	reading sync.RWMutex

	mu      sync.Mutex
	current progress // guarded by mu
}

// side is the way to the other hosts for packets with outer headers of one family.
type side struct {
	uplink   uplink.Uplink // zero without one
	publicIP netip.Addr
	// problem is why the uplink cannot be used at present; "" if it can.
	problem string
	// awaited is why there is no uplink yet, while this host waits for it beside the
	// other family's; "" otherwise.
	awaited string
}

// progress is the state at one time. A field that is not reached yet is zero.
type progress struct {
	sides [len(inet.Families)]side // by family
	// without are the reasons why this host does not carry a family that the
	// configuration enables; "" for one that it carries.
	without [len(inet.Families)]string
	store   store.Store
	// configError is why the configuration is not known yet.
	configError error
	config      *subnet.Config
	manager     *subnet.Manager
	network     backend.Network
	applied     bool                                   // network has its first full set of peers
	replaced    string                                 // why another network is made; "" before the first, and while there is one
	probers     [len(inet.Families)]*probe.Prober      // by family; nil while its peers are not probed
	routes      [len(inet.Families)]*hostroute.Checker // by family; nil while routes are not checked
	offloads    *offloads                              // nil while offloads are not probed
	losses      []string                               // what the network goes on without; never changed in place
	ready       bool                                   // the daemon has been ready at least once
}

// outside returns the families of outer headers that this host can send.
func (p progress) outside() (families []inet.Family) {
	for _, f := range inet.Families {
		if p.sides[f].uplink.Index != 0 {
			families = append(families, f)
		}
	}
	return families
}

// uplinks returns the uplink for containers' packets of each family: that of the other
// family where the family has none.
func (p progress) uplinks() (all [len(inet.Families)]uplink.Uplink) {
	for _, f := range inet.Families {
		all[f] = cmp.Or(p.sides[f].uplink, p.sides[f.Other()].uplink)
	}
	return all
}

// interfaces returns the names of the uplinks, each once.
func (p progress) interfaces() string {
	var names []string
	for _, f := range p.outside() {
		if name := p.sides[f].uplink.Name; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// inside returns the families of config that this host carries.
func (p progress) inside(config *subnet.Config) []inet.Family {
	return slices.DeleteFunc(config.Families(), func(f inet.Family) bool { return p.without[f] != "" })
}

// left returns the families that this host does not carry.
func (p progress) left() (families []inet.Family) {
	for _, f := range inet.Families {
		if p.without[f] != "" {
			families = append(families, f)
		}
	}
	return families
}

// host describes this host by its addresses.
func (p progress) host() subnet.Attrs {
	return subnet.Attrs{PublicIP: p.sides[inet.IPv4].publicIP, PublicIPv6: p.sides[inet.IPv6].publicIP}
}

func (s *state) update(change func(*progress)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.current)
}

func (s *state) get() progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// wasReady reports whether the daemon has been ready at least once.
func (s *state) wasReady() bool { return s.get().ready }

// read calls f with the state. The state's network stays open until f returns.
func (s *state) read(f func(progress)) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	f(s.get())
}

// removeNetwork removes the network and its probers from the state. It waits for
// its readers; after that the network may be closed.
func (s *state) removeNetwork() {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.update(func(s *progress) {
		s.network, s.offloads, s.applied = nil, nil, false
		clear(s.probers[:])
	})
}
