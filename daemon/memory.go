package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/state"
	"github.com/coreos/flannel/pkg/turn"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

const (
	// storePatience is how long a start waits for the store before it goes on
	// with what is remembered: one round trip's limit.
	storePatience = 5 * time.Second
	// rememberEvery bounds how often the file is written.
	rememberEvery = 10 * time.Second
)

// memory is what a daemon needs to start while the store is away.
type memory struct {
	// Prefix, Endpoints and API say which network it is of, and in which store.
	Prefix    string
	Endpoints []string
	API       string
	Config    subnet.Config
	Lease     subnet.Lease
	Peers     []*subnet.Lease
	// Written is when this was; Ends is when the lease ends, by the clock of that
	// boot (subnet.Options.Clock).
	Written clock.Timestamp
	Ends    time.Duration
}

// memoryFile is named after the prefix: a host may be in several networks, with
// a daemon for each.
func (d *daemon) memoryFile() string {
	return filepath.Join(d.options.stateDir, "network-"+url.PathEscape(d.options.store.Prefix))
}

// forget removes what is remembered, of a lease that is another host's now.
func (d *daemon) forget() error {
	if err := os.Remove(d.memoryFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget lost lease: %w", err)
	}
	return nil
}

// recall returns what the last run remembered of this network; nil if that is
// nothing, or of no use: a damaged file costs no more than the memory.
func (d *daemon) recall() *memory {
	var m memory
	err := state.Read(d.memoryFile(), &m)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		log.Warningf("ignore what was remembered: %v", err)
		return nil
	case m.Prefix != d.options.store.Prefix || !slices.Equal(m.Endpoints, d.options.store.Endpoints),
		d.options.store.API != store.APIAuto && d.options.store.API != m.API, !m.Lease.Subnet.IsValid(), slices.Contains(m.Peers, nil):
		return nil
	}
	return &m
}

// left is for how long the lease still is publicIP's; not above 0 if it is not.
func (m *memory) left(publicIP netip.Addr, now clock.Timestamp) time.Duration {
	switch {
	case m == nil || m.Lease.Attrs.PublicIP != publicIP:
		return 0
	case m.Lease.Reserved:
		return math.MaxInt64
	}
	passed, known := now.Since(m.Written)
	if !known {
		return 0
	}
	return m.Ends - m.Written.SinceBoot - passed
}

// previousSubnet is the one to ask for: the last run's. subnet.env is often in a
// folder that a reboot empties.
func (d *daemon) previousSubnet(remembered *memory) netip.Prefix {
	if p := d.previous().Subnet; p.IsValid() || remembered == nil {
		return p
	}
	return remembered.Lease.Subnet
}

// previousNetworks are those of earlier runs other than now.
func (d *daemon) previousNetworks(remembered *memory, now netip.Prefix) []netip.Prefix {
	before := []netip.Prefix{d.previous().Network}
	if remembered != nil {
		before = append(before, remembered.Config.Network)
	}
	before = slices.DeleteFunc(before, func(p netip.Prefix) bool { return !p.IsValid() || p == now })
	return slices.Compact(before)
}

// subnets are those of the peers of that time.
func (m *memory) subnets() []netip.Prefix {
	if m == nil {
		return nil
	}
	var all []netip.Prefix
	for _, l := range m.Peers {
		all = append(all, l.Subnet)
	}
	return all
}

// recorder writes the memory while the network is at work.
type recorder struct {
	path   string
	memory memory // without Lease and Peers
	// turnout is told who comes and goes.
	turnout *turn.Notes

	mu      sync.Mutex // guards what follows
	manager *subnet.Manager
	peers   map[netip.Prefix]*subnet.Lease
	changed bool
}

func (d *daemon) newRecorder(j joined) *recorder {
	return &recorder{
		path: d.memoryFile(), turnout: &d.turnout, manager: j.manager, peers: make(map[netip.Prefix]*subnet.Lease),
		memory: memory{Prefix: d.options.store.Prefix, Endpoints: d.options.store.Endpoints, API: j.store.API, Config: *j.config},
	}
}

// follow makes m the manager in charge from now on.
func (r *recorder) follow(m *subnet.Manager) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manager = m
}

// note takes up what the data plane is told.
func (r *recorder) note(events []subnet.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		_, known := r.peers[e.Lease.Subnet]
		is := e.Type == subnet.Added
		if is {
			r.peers[e.Lease.Subnet] = e.Lease
		} else {
			delete(r.peers, e.Lease.Subnet)
		}
		if is != known {
			r.turnout.Note(e.Lease.Subnet, is)
		}
	}
	r.changed = true
}

// run writes what has changed every rememberEvery, and at the end.
func (r *recorder) run(ctx context.Context) error {
	for {
		select {
		case <-time.After(clock.UntilTick(rememberEvery)):
			r.write()
		case <-ctx.Done():
			r.write()
			return nil
		}
	}
}

func (r *recorder) write() {
	r.mu.Lock()
	status, now := r.manager.Status(), clock.Now()
	lease := status.Lease
	changed := r.changed || lease.Rev != r.memory.Lease.Rev || status.Ends != r.memory.Ends || now.Stepped(r.memory.Written)
	r.changed = false
	if changed {
		r.memory.Lease, r.memory.Ends, r.memory.Written = lease, status.Ends, now
	}
	m := r.memory
	r.mu.Unlock()
	if !changed {
		return
	}
	m.Peers = r.leases()
	if err := state.Write(r.path, m); err != nil {
		ratelog.Warningf("remember lease and peers: %v; a start while the store is away will have to wait for it", err)
	}
}

// subnets are those of the peers.
func (r *recorder) subnets() []netip.Prefix {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.peers), netip.Prefix.Compare)
}

// leases are those of the peers, in order.
func (r *recorder) leases() []*subnet.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.peers), func(a, b *subnet.Lease) int { return a.Subnet.Compare(b.Subnet) })
}
