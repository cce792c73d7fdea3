// Package rig makes the subjects of the benchmark: for each subject and scenario a
// pair of hosts in network namespaces, a veth pair between them, and one transport
// for packets.
//
//	┌─ container ──────────┐                      ┌─ container ──────────┐
//	│ load, eth0 10.x.y.2  │                      │ load, eth0 10.x.z.2  │
//	└──────┬───────────────┘                      └──────┬───────────────┘
//	┌──────┴─ host a ──────┐                      ┌──────┴─ host b ──────┐
//	│ docker0 10.x.y.1/24  │                      │ docker0 10.x.z.1/24  │
//	│ firewall rules       │                      │ firewall rules       │
//	│ the subject's device │                      │ the subject's device │
//	│ link0 172.20.0.1/16 ─┼───────── veth ───────┼─ link0 172.20.0.2/16 │
//	│ eth0 ────────┐       │                      │ eth0 ────────┐       │
//	└──────────────┼───────┘                      └──────────────┼───────┘
//	               └─ switch ─ host "store", with the leases ────┘
//
// The load crosses link0 alone; eth0 leads to the store. All further peers are
// simulated: there are leases, but no hosts. For IPv6 inside, link0 has addresses of
// both families, and bridge and container those of IPv6.
package rig

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Rig holds the pairs of one run of the benchmark, until its scope ends. Only the
// scope's goroutine may call its methods.
type Rig struct {
	scope    netnstest.Scope
	lab      *netnstest.Lab
	programs Programs
	dir      string
	store    *store
	pairs    map[string]*Pair
	// containers is the number of containers made so far.
	containers int
}

// Programs are the paths of the programs that the benchmark runs.
type Programs struct {
	// Flannel is the measured program.
	Flannel string
	// WireGuardGo is golang.zx2c4.com/wireguard's own program. Its subject is left
	// out if there is none.
	WireGuardGo string
}

// New returns a rig without pairs. dir is a folder for the programs' files.
func New(scope netnstest.Scope, programs Programs, dir string) *Rig {
	scope.Helper()
	return &Rig{scope: scope, lab: netnstest.New(scope), programs: programs, dir: dir, pairs: make(map[string]*Pair)}
}

// Pair returns the pair of hosts for a subject in a setting. The first call makes
// it. The pair is down.
func (r *Rig) Pair(ctx context.Context, s Subject, in Setting) (*Pair, error) {
	r.scope.Helper()
	name := fmt.Sprintf("%s-%s-%d-%s-%s-%v", s.Name, in.Link.Name, in.Routes, in.Ends.Name, in.Rules.Name, in.Inside)
	if p, ok := r.pairs[name]; ok {
		return p, nil
	}
	p := r.wire(name, in)
	p.byHand = s.byHand
	if err := p.setFeatures(ctx); err != nil {
		return nil, err
	}
	var err error
	if p.transport, err = s.open(ctx, p); err != nil {
		return nil, fmt.Errorf("set up %s: %w", s.Name, err)
	}
	r.scope.Cleanup(func() {
		if err := p.transport.down(); err != nil {
			r.scope.Logf("take down %s: %v", name, err)
		}
	})
	r.pairs[name] = p
	return p, nil
}

// folder returns the folder of a host's files.
func (r *Rig) folder(h *netnstest.Host) string { return filepath.Join(r.dir, h.Name()) }
