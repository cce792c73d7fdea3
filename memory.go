package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/state"
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
	Peers     []subnet.Lease
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
		d.options.store.API != store.APIAuto && d.options.store.API != m.API, !m.Lease.Subnet.IsValid():
		return nil
	}
	return &m
}

// holds reports whether the lease is publicIP's and has not ended by the wall
// clock, the only one that goes on over a reboot.
func (m *memory) holds(publicIP netip.Addr, now time.Time) bool {
	return m != nil && m.Lease.Attrs.PublicIP == publicIP && (m.Lease.Reserved || now.Before(m.Lease.Expiration))
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

	mu      sync.Mutex // guards what follows
	manager *subnet.Manager
	peers   map[netip.Prefix]subnet.Lease
	changed bool
}

func (d *daemon) newRecorder(j joined) *recorder {
	return &recorder{
		path: d.memoryFile(), manager: j.manager, peers: make(map[netip.Prefix]subnet.Lease),
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
		if e.Type == subnet.Removed {
			delete(r.peers, e.Lease.Subnet)
		} else {
			r.peers[e.Lease.Subnet] = e.Lease
		}
	}
	r.changed = true
}

// run writes what has changed every rememberEvery, and at the end.
func (r *recorder) run(ctx context.Context) error {
	tick := time.NewTicker(rememberEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.write()
		case <-ctx.Done():
			r.write()
			return nil
		}
	}
}

func (r *recorder) write() {
	r.mu.Lock()
	lease := r.manager.Status().Lease
	changed := r.changed || lease.Rev != r.memory.Lease.Rev || !lease.Expiration.Equal(r.memory.Lease.Expiration)
	r.changed = false
	r.memory.Lease = lease
	m := r.memory
	r.mu.Unlock()
	if !changed {
		return
	}
	m.Peers = r.leases()
	if err := state.Write(r.path, m); err != nil {
		log.Warningf("remember lease and peers: %v; a start while the store is away will have to wait for it", err)
	}
}

// leases are those of the peers, in order.
func (r *recorder) leases() []subnet.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.peers), func(a, b subnet.Lease) int { return a.Subnet.Compare(b.Subnet) })
}
