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

// retries is how often a measurement that failed is repeated: a request that is
// lost ends sockperf's ping-pong, and a tunnel promises no more than UDP does.
const retries = 2

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
		Reference: rig.Reference, LeftOut: make(map[string]string),
		Scenarios: inTurns(o.turns, func(t turn) result.Scenario { return t.at })}
	for _, m := range measures() {
		if slices.ContainsFunc(o.turns, func(t turn) bool { return slices.ContainsFunc(t.measures, m.is) }) {
			r.Figures = append(r.Figures, m.figures...)
		}
	}
	return r, nil
}

// run measures all rounds. Where it fails, the result holds the rounds that
// were complete.
func (b *bench) run(ctx context.Context) error {
	rounds := 0
	defer func() {
		b.result.Complete(rounds)
		b.result.Judge(targets())
	}()
	turns, err := b.present(ctx)
	if err != nil {
		return err
	}
	for ; rounds < b.options.rounds; rounds++ {
		began := time.Now()
		for _, t := range turns {
			b.Logf("round %d of %d: link %s, %d routes: %s", rounds+1, b.options.rounds, t.at.Link, t.at.Routes, t.subject.Name)
			if err := b.turn(ctx, t); err != nil {
				return err
			}
		}
		took := time.Since(began)
		b.Logf("round %d took %v, the rest will take %v", rounds+1, took.Round(time.Second),
			(took * time.Duration(b.options.rounds-rounds-1)).Round(time.Second))
	}
	return nil
}

// present are the turns whose subjects can be had here.
func (b *bench) present(ctx context.Context) ([]turn, error) {
	var turns []turn
	for _, name := range inTurns(b.options.turns, func(t turn) string { return t.subject.Name }) {
		its := slices.DeleteFunc(slices.Clone(b.options.turns), func(t turn) bool { return t.subject.Name != name })
		err := b.try(ctx, its[0])
		refused := (*rig.RefusedError)(nil)
		switch {
		case err == nil:
			s := its[0].subject
			b.result.Subjects = append(b.result.Subjects, result.Subject{Name: s.Name, About: s.About, ByHand: s.ByHand})
		case errors.As(err, &refused) && !slices.Contains(b.options.wanted, name):
			b.Logf("leave out %s: %v", name, refused)
			b.result.LeftOut[name] = refused.Reason
		default:
			return nil, err
		}
	}
	for _, t := range b.options.turns {
		if _, out := b.result.LeftOut[t.subject.Name]; !out {
			turns = append(turns, t)
		}
	}
	if len(turns) == 0 {
		return nil, errors.New("no subject can be had here")
	}
	return turns, nil
}

// try brings a turn's subject up.
func (b *bench) try(ctx context.Context, t turn) error {
	pair, err := b.pair(ctx, t)
	if err != nil {
		return err
	}
	_, _, err = pair.Up(ctx)
	return errors.Join(err, pair.Down())
}

func (b *bench) pair(ctx context.Context, t turn) (*rig.Pair, error) {
	link := named([]string{t.at.Link}, rig.Links(), linkName)[0]
	return b.rig.Pair(ctx, t.subject, link, t.at.Routes)
}

// turn measures a subject once in a scenario.
func (b *bench) turn(ctx context.Context, t turn) (err error) {
	pair, err := b.pair(ctx, t)
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
	for _, m := range t.measures {
		values, err := m.run(ctx, from, to, b.options)
		for again := 0; err != nil && again < retries && ctx.Err() == nil; again++ {
			b.Logf("measure %s of %s again: %v", m.name, t.subject.Name, err)
			b.result.Repeated++
			values, err = m.run(ctx, from, to, b.options)
		}
		if err != nil {
			return fmt.Errorf("measure %s of %s, link %s, %d routes: %w", m.name, t.subject.Name, t.at.Link, t.at.Routes, err)
		}
		for i, f := range m.figures {
			b.result.Add(t.at, t.subject.Name, f.Name, values[i])
		}
	}
	return nil
}
