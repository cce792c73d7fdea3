package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coreos/flannel/e2e/bench/machine"
	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
	"github.com/coreos/flannel/pkg/netnstest"
)

// quietLimit is how long to wait before each subject's turn for the machine to
// have nothing else to do.
const quietLimit = 10 * time.Second

// bench is one run.
type bench struct {
	*netnstest.Program
	options *options
	rig     *rig.Rig
	result  *result.Result
}

// newResult is a result without cells.
func newResult(ctx context.Context, o *options) (*result.Result, error) {
	m, err := machine.Describe(ctx)
	if err != nil {
		return nil, err
	}
	r := &result.Result{Machine: m, Seconds: o.seconds, Congestion: o.congestion,
		Reference: rig.Reference, LeftOut: make(map[string]string), Scenarios: o.scenarios}
	for _, m := range o.measures {
		r.Figures = append(r.Figures, m.figures...)
	}
	return r, nil
}

// run measures all rounds. Where it fails, the result holds the rounds that
// were complete.
func (b *bench) run(ctx context.Context) error {
	rounds := 0
	defer func() { b.result.Complete(rounds) }()
	subjects, err := b.present(ctx)
	if err != nil {
		return err
	}
	for _, s := range subjects {
		b.result.Subjects = append(b.result.Subjects, result.Subject{Name: s.Name, About: s.About, ByHand: s.ByHand})
	}
	for ; rounds < b.options.rounds; rounds++ {
		began := time.Now()
		for _, at := range b.options.scenarios {
			for _, s := range subjects {
				b.Logf("round %d of %d: link %s, %d routes: %s", rounds+1, b.options.rounds, at.Link, at.Routes, s.Name)
				if err := b.turn(ctx, at, s); err != nil {
					return err
				}
			}
		}
		took := time.Since(began)
		b.Logf("round %d took %v, the rest will take %v", rounds+1, took.Round(time.Second),
			(took * time.Duration(b.options.rounds-rounds-1)).Round(time.Second))
	}
	return nil
}

// present are the subjects that can be had here.
func (b *bench) present(ctx context.Context) ([]rig.Subject, error) {
	var subjects []rig.Subject
	for _, s := range b.options.subjects {
		err := b.try(ctx, s)
		refused := (*rig.RefusedError)(nil)
		switch {
		case err == nil:
			subjects = append(subjects, s)
		case errors.As(err, &refused) && !slices.Contains(b.options.wanted, s.Name):
			b.Logf("leave out %s: %v", s.Name, refused)
			b.result.LeftOut[s.Name] = refused.Reason
		default:
			return nil, err
		}
	}
	if len(subjects) == 0 {
		return nil, errors.New("no subject can be had here")
	}
	return subjects, nil
}

// try brings a subject up in the first scenario.
func (b *bench) try(ctx context.Context, s rig.Subject) error {
	pair, err := b.pair(ctx, b.options.scenarios[0], s)
	if err != nil {
		return err
	}
	_, _, err = pair.Up(ctx)
	return errors.Join(err, pair.Down())
}

func (b *bench) pair(ctx context.Context, at result.Scenario, s rig.Subject) (*rig.Pair, error) {
	link := slices.IndexFunc(b.options.links, func(l rig.Link) bool { return l.Name == at.Link })
	return b.rig.Pair(ctx, s, b.options.links[link], at.Routes)
}

// turn measures a subject once in a scenario.
func (b *bench) turn(ctx context.Context, at result.Scenario, s rig.Subject) (err error) {
	pair, err := b.pair(ctx, at, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pair.Down()) }()
	from, to, err := pair.Up(ctx)
	if err != nil {
		return err
	}
	limit := quietLimit
	if b.options.quick {
		limit = 0
	}
	foreign, err := machine.AwaitQuiet(ctx, limit)
	if err != nil {
		return err
	}
	b.result.Foreign = append(b.result.Foreign, foreign)
	for _, m := range b.options.measures {
		values, err := m.run(ctx, from, to, b.options)
		if err != nil {
			return fmt.Errorf("measure %s of %s, link %s, %d routes: %w", m.name, s.Name, at.Link, at.Routes, err)
		}
		for i, f := range m.figures {
			b.result.Add(at, s.Name, f.Name, values[i])
		}
	}
	return nil
}
