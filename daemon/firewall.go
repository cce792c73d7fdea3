package daemon

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/subnet"
)

// firewall keeps the rules of -ip-masq, a table for each family.
type firewall struct {
	options *Options
	changed chan struct{} // holds a token after a change of tables

	mu     sync.Mutex // guards tables
	tables []table

	// The functions that reach the kernel.
	set    func(masq.Rules) error
	keep   func(context.Context, masq.Rules) error
	remove func(network netip.Prefix) error
	// leftovers lists what stays in the kernel.
	leftovers func(network netip.Prefix) ([]all.Leftover, error)
}

// table is the rules of one family.
type table struct {
	masq.Rules
	enabled bool
	second  bool // IPv6 beside IPv4
}

func newFirewall(o *Options) *firewall {
	return &firewall{options: o, changed: make(chan struct{}, 1),
		set: masq.Apply, keep: masq.Run, remove: masq.Remove, leftovers: all.Leftovers}
}

// apply sets the rules of a lease in the networks of config.
func (f *firewall) apply(config *subnet.Config, l subnet.Lease) error {
	tables := f.tablesFor(config, l)
	f.mu.Lock()
	before := f.tables
	f.tables = tables
	f.mu.Unlock()
	if reflect.DeepEqual(before, tables) {
		return nil
	}
	for _, t := range tables {
		if t.enabled {
			if err := t.tolerate(f.set(t.Rules)); err != nil {
				return err
			}
		}
	}
	if before != nil {
		select {
		case f.changed <- struct{}{}:
		default: // one is pending
		}
	}
	return nil
}

// tolerate returns err, a failure to set or keep the rules. That of IPv6 is logged: it
// must not end IPv4.
func (t table) tolerate(err error) error {
	if err != nil && t.second {
		ratelog.Errorf("IPv6 packets are not masqueraded network=%v reason=%q", t.Network, err)
		return nil
	}
	return err
}

func (f *firewall) tablesFor(config *subnet.Config, l subnet.Lease) (tables []table) {
	for _, family := range config.Families() {
		own := l.SubnetOf(family)
		if !own.IsValid() {
			continue
		}
		t := table{Rules: masq.Rules{Network: config.RangeOf(family).Network, Subnet: own}, second: len(tables) > 0}
		t.enabled = f.options.masquerades(t.Network)
		t.NoForward, t.OrderedPorts = !f.options.forwardRules, f.options.orderedPorts
		for _, p := range f.options.masqExclude {
			if inet.Of(p.Addr()) == family {
				t.Exclude = append(t.Exclude, p)
			}
		}
		tables = append(tables, t)
	}
	return tables
}

// Run keeps the rules until ctx ends. It removes those of an earlier run that are
// not enabled.
func (f *firewall) Run(ctx context.Context) error {
	for {
		if err := f.keepTables(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// keepTables keeps the present rules until they change or ctx ends.
func (f *firewall) keepTables(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks := []task{func(ctx context.Context) error {
		select {
		case <-f.changed:
			cancel()
		case <-ctx.Done():
		}
		return nil
	}}
	for _, t := range f.present() {
		if t.enabled {
			tasks = append(tasks, func(ctx context.Context) error { return t.tolerate(f.keep(ctx, t.Rules)) })
		} else if err := f.remove(t.Network); err != nil {
			log.V(1).Infof("look for old firewall rules: %v", err) // no nftables, no rules
		}
	}
	return runTogether(ctx, tasks...)
}

func (f *firewall) present() []table {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tables
}

// finish removes the rules, unless a device or routes of the network stay: then
// the kernel goes on with packets, and containers' packets to other networks must
// not leave with addresses of the overlay. The next start takes the rules over, or
// removes them; flannel cleanup removes them, too.
func (f *firewall) finish() error {
	var errs []error
	for _, t := range f.present() {
		if !t.enabled {
			continue
		}
		left, err := f.leftovers(t.Network)
		switch {
		case err != nil:
			errs = append(errs, err)
		case slices.ContainsFunc(left, all.Leftover.Carries):
			log.Infof("leave firewall rules network=%v reason=%q", t.Network, "the kernel goes on with packets")
		default:
			errs = append(errs, f.remove(t.Network))
		}
	}
	return errors.Join(errs...)
}
