package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/coreos/flannel/pkg/netnstest"
)

// counters are what the kernel and the daemon have counted in a namespace, by name. Those
// of softnet are the machine's.
type counters map[string]uint64

// losses are the names of counters that a lost packet can raise.
var losses = regexp.MustCompile(`(?i)drop|discard|err|invalid|fail|noroutes|noports|filter|overflow`)

// readCounters reads the counters of losses.
func readCounters(h *netnstest.Host) (counters, error) {
	c := make(counters)
	err := h.Do(func() error {
		fs, err := procfs.NewFS("/proc/thread-self")
		if err != nil {
			return err
		}
		return errors.Join(c.addTables("snmp"), c.addTables("netstat"), c.addDevices(fs), c.addConntrack(fs), c.addSoftnet(fs))
	})
	maps.DeleteFunc(c, func(name string, _ uint64) bool { return !losses.MatchString(name) })
	return c, err
}

// addTables adds a file of pairs of lines: names, and their values.
func (c counters) addTables(file string) error {
	text, err := os.ReadFile("/proc/thread-self/net/" + file)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for pair := range slices.Chunk(lines, 2) {
		names, values := strings.Fields(pair[0]), strings.Fields(pair[len(pair)-1])
		for i := 1; i < min(len(names), len(values)); i++ {
			if n, err := strconv.ParseUint(values[i], 10, 64); err == nil { // Tcp MaxConn is -1
				c[names[0]+names[i]] = n
			}
		}
	}
	return nil
}

func (c counters) addDevices(fs procfs.FS) error {
	devices, err := fs.NetDev()
	for name, d := range devices {
		c[name+":RxErrors"], c[name+":RxDropped"] = d.RxErrors, d.RxDropped
		c[name+":TxErrors"], c[name+":TxDropped"] = d.TxErrors, d.TxDropped
	}
	return err
}

// addConntrack adds nothing if no rule has the kernel track flows.
func (c counters) addConntrack(fs procfs.FS) error {
	processors, err := fs.ConntrackStat()
	for _, p := range processors {
		c["conntrack:Invalid"] += p.Invalid
		c["conntrack:InsertFailed"] += p.InsertFailed
		c["conntrack:Dropped"] += p.Drop + p.EarlyDrop
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// addSoftnet adds the packets that queues of the processors had no room for
// (net.core.netdev_max_backlog). All namespaces share these queues.
func (c counters) addSoftnet(fs procfs.FS) error {
	processors, err := fs.NetSoftnetStat()
	for _, p := range processors {
		c["softnet:Dropped"] += uint64(p.Dropped)
	}
	return err
}

// addDaemon adds the packets that the host's daemon has dropped, by reason.
func (c counters) addDaemon(h *faultHost) {
	h.t.Helper()
	for line := range strings.Lines(h.metrics()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil && losses.MatchString(name) {
			c[name] = uint64(n)
		}
	}
}

// since returns the counters that have risen, in order.
func (c counters) since(before counters) (risen []string) {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if c[name] > before[name] {
			risen = append(risen, fmt.Sprintf("%s +%d", name, c[name]-before[name]))
		}
	}
	return risen
}

// count reads the counters of each host and its container, by name of the namespace.
func (r *faultRig) count() map[string]counters {
	r.t.Helper()
	all := make(map[string]counters)
	for _, h := range r.hosts {
		for _, ns := range []*netnstest.Host{h.Host, h.container} {
			c, err := readCounters(ns)
			r.must(err)
			all[ns.Name()] = c
		}
		all[h.Name()].addDaemon(h)
	}
	return all
}

// explain logs what has been counted since then.
func (r *faultRig) explain(before map[string]counters) {
	r.t.Helper()
	now := r.count()
	for _, name := range slices.Sorted(maps.Keys(now)) {
		r.t.Logf("counters of %s: %s", name, strings.Join(now[name].since(before[name]), ", "))
	}
}
