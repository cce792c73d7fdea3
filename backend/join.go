package backend

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/subnet"
)

// Join makes one Network of a Network for each family, which all have the same data
// path and no drops to count. Each gets the events of its family only. A fault of one
// family is an error of Check and leaves the packets of the other alone.
func Join(parts map[inet.Family]Network) Network {
	var j joined
	for _, f := range inet.Families {
		if n := parts[f]; n != nil {
			j = append(j, part{f, n})
		}
	}
	return &j // callers compare Networks; slices cannot be compared
}

// AllFailed returns the errors of a network's parts, of which there is one for each, if
// all parts have failed. Otherwise it logs them: the other part goes on, and Run tries
// again.
func AllFailed(errs []error) error {
	if !slices.Contains(errs, nil) {
		return errors.Join(errs...)
	}
	for _, err := range errs {
		if err != nil {
			ratelog.Errorf("go on with one family: %v", err)
		}
	}
	return nil
}

// joined is in the order of families, and not empty.
type joined []part

type part struct {
	family inet.Family
	Network
}

// MTU implements Network: containers have one MTU for both families.
func (j joined) MTU() int {
	mtu := j[0].MTU()
	for _, p := range j[1:] {
		mtu = min(mtu, p.MTU())
	}
	return mtu
}

// Apply implements Network. A part gets its first events even if there are none: they
// are all its peers.
func (j joined) Apply(events []subnet.Event) {
	for _, p := range j {
		var own []subnet.Event
		for _, e := range events {
			if e.Family == p.family {
				own = append(own, e)
			}
		}
		p.Apply(own)
	}
}

// Run implements Network. It ends when one part does.
func (j joined) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range j {
		g.Go(func() error { return p.Run(ctx) })
	}
	return g.Wait()
}

// DataPath implements Network. A part that is not up yet has none.
func (j joined) DataPath() (name string) {
	for _, p := range j {
		name = cmp.Or(name, p.DataPath())
	}
	return name
}

// Encapsulation implements Network. A part that is not up yet has none.
func (j joined) Encapsulation() (e Encapsulation) {
	for _, p := range j {
		e = cmp.Or(e, p.Encapsulation())
	}
	return e
}

// Stats implements Network.
func (j joined) Stats() Stats {
	all := j[0].Stats()
	for _, p := range j[1:] {
		s := p.Stats()
		all.DataPath = cmp.Or(all.DataPath, s.DataPath)
		all.Peers = append(all.Peers, s.Peers...)
		switch {
		case all.Reason == "":
			all.Reason = s.Reason
		case s.Reason != "" && s.Reason != all.Reason:
			all.Reason += "; " + s.Reason
		}
	}
	return all
}

// Check implements Network.
func (j joined) Check() error {
	var errs []error
	for _, p := range j {
		errs = append(errs, p.Check())
	}
	return errors.Join(errs...)
}

// Close implements Network.
func (j joined) Close() error {
	var errs []error
	for _, p := range j {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
