package daemon

import (
	"net/netip"
	"sync"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/hostroute"
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

// progress is the state at one time. A field that is not reached yet is zero.
type progress struct {
	uplink uplink.Uplink
	// uplinkProblem is why the uplink cannot be used at present; "" if it can.
	uplinkProblem string
	publicIP      netip.Addr
	store         store.Store
	config        *subnet.Config
	manager       *subnet.Manager
	network       backend.Network
	applied       bool               // network has its first full set of peers
	prober        *probe.Prober      // nil while the network's peers are not probed
	routes        *hostroute.Checker // nil while routes are not checked
	offloads      *offloads          // nil while offloads are not probed
	ready         bool               // the daemon has been ready at least once
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
	s.update(func(s *progress) { s.network, s.prober, s.offloads, s.applied = nil, nil, nil, false })
}
