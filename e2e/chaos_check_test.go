package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
)

// These are a daemon's resources beyond those of its start: connections to etcd
// that come and go, and a heap between two collections. A program that the daemon has
// loaded has a file with its types (btf of ebpf.Program), and one that it took over has
// none: these are 13 programs, and two maps.
const (
	moreFiles      = 12 + 15
	moreGoroutines = 20
	moreMemory     = 64 << 20 // bytes; the race detector's included
)

// resources grow with a leak.
type resources struct{ files, goroutines, memory float64 }

// resources reads the daemon's own metrics.
func (h *faultHost) resources() (r resources) {
	h.t.Helper()
	wanted := map[string]*float64{
		"process_open_fds": &r.files, "go_goroutines": &r.goroutines, "process_resident_memory_bytes": &r.memory,
	}
	for line := range strings.Lines(h.metrics()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if to := wanted[name]; to != nil {
			if _, err := fmt.Sscan(value, to); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	if r.files == 0 || r.goroutines == 0 || r.memory == 0 {
		h.t.Fatalf("metrics of host %s tell too little: %+v", h.Name(), r)
	}
	return r
}

// leaks compares with when the daemon was young.
func (h *faultHost) leaks() error {
	now := h.resources()
	if now.files > h.used.files+moreFiles || now.goroutines > h.used.goroutines+moreGoroutines ||
		now.memory > h.used.memory+moreMemory {
		return fmt.Errorf("the daemon on %s uses %+v, used %+v", h.Name(), now, h.used)
	}
	return nil
}

// These belong to other programs on a host: a route and an nftables table.
const (
	foreignRoute = "203.0.113.0/24"
	foreignTable = "foreign"
)

func (h *faultHost) plantForeign() {
	h.t.Helper()
	for _, line := range [][]string{
		{"ip", "route", "add", "blackhole", foreignRoute, "metric", "77"},
		{"nft", "add", "table", "ip", foreignTable},
		{"nft", "add", "chain", "ip", foreignTable, "forward", "{ type filter hook forward priority 5; }"},
		{"nft", "add", "rule", "ip", foreignTable, "forward", "ip", "daddr", foreignRoute, "drop"},
	} {
		if out, err := output(h.t, h.Host, line[0], line[1:]...); err != nil {
			h.t.Fatalf("%v: %v\n%s", line, err, out)
		}
	}
}

// foreign checks that the state of other programs is unchanged.
func (h *faultHost) foreign() error {
	routes, err := output(h.t, h.Host, "ip", "route", "show", foreignRoute)
	if want := "blackhole " + foreignRoute + " metric 77"; err != nil || strings.TrimSpace(routes) != want {
		return fmt.Errorf("host %s: the foreign route is %q, %v", h.Name(), routes, err)
	}
	rules, err := output(h.t, h.Host, "nft", "list", "table", "ip", foreignTable)
	if err != nil || !strings.Contains(rules, "ip daddr "+foreignRoute+" drop") || strings.Count(rules, "\n") != 6 {
		return fmt.Errorf("host %s: the foreign table is, %v\n%s", h.Name(), err, rules)
	}
	return nil
}

// fast waits until the flows of every host's container take the fast path, both
// ways, if the host has one.
func (r *faultRig) fast(after string) {
	r.t.Helper()
	for _, h := range r.hosts {
		before := h.status().Backend.FastPath
		if before == nil {
			continue
		}
		eventually(r.t, fmt.Sprintf("after %q containers of %s use the fast path", after, h.Name()), func() error {
			s, err := h.readStatus()
			if err != nil {
				return err
			}
			if s.Backend.FastPath == nil {
				return errors.New("there is none")
			}
			if now := s.Backend.FastPath; now.TxPackets <= before.TxPackets || now.RxPackets <= before.RxPackets {
				return fmt.Errorf("it went from %+v to %+v", before, now)
			}
			return nil
		})
	}
}

// zombies finds dead children that a daemon has not waited for.
func (r *faultRig) zombies() error {
	all, err := procfs.AllProcs()
	if err != nil {
		return err
	}
	for _, p := range all {
		stat, err := p.Stat()
		if err != nil || stat.State != "Z" {
			continue // gone, or alive
		}
		if slices.ContainsFunc(r.hosts, func(h *faultHost) bool { return h.daemon.cmd.Process.Pid == stat.PPID }) {
			return fmt.Errorf("process %d (%s) of a daemon is a zombie", p.PID, stat.Comm)
		}
	}
	return nil
}
