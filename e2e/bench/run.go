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
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// quietLimit bounds the wait for an idle machine before each trial.
const quietLimit = 10 * time.Second

// retries is how often a failed measurement is repeated. A tunnel may lose packets,
// as UDP may, and a server may start late on a busy machine.
const retries = 2

// bench is one run.
type bench struct {
	*netnstest.Program
	options *options
	rig     *rig.Rig
	result  *result.Result
}

// newResult returns a result without cells.
func newResult(ctx context.Context, o *options) (*result.Result, error) {
	m, err := machine.Describe(ctx)
	if err != nil {
		return nil, err
	}
	r := &result.Result{Machine: m, Seconds: o.seconds, Congestion: o.congestion,
		Reference: rig.Reference, LeftOut: make(map[string]string),
		Scenarios: distinct(o.trials, func(t trial) result.Scenario { return t.at })}
	for _, m := range measures() {
		if slices.ContainsFunc(o.trials, func(t trial) bool { return slices.ContainsFunc(t.measures, m.is) }) {
			r.Figures = append(r.Figures, m.figures...)
		}
	}
	return r, nil
}

// run measures all rounds. If it fails, the result has the complete rounds.
func (b *bench) run(ctx context.Context) error {
	rounds := 0
	defer func() {
		b.result.Complete(rounds)
		b.result.Evaluate(targets())
	}()
	trials, err := b.available(ctx)
	if err != nil {
		return err
	}
	for ; rounds < b.options.rounds; rounds++ {
		began := time.Now()
		for _, t := range trials {
			b.Logf("round %d of %d: %v: %s", rounds+1, b.options.rounds, t.at, t.subject.Name)
			if err := b.measure(ctx, t); err != nil {
				return err
			}
		}
		took := time.Since(began)
		b.Logf("round %d took %v, the rest will take %v", rounds+1, took.Round(time.Second),
			(took * time.Duration(b.options.rounds-rounds-1)).Round(time.Second))
	}
	return nil
}

// available returns the trials whose subjects this machine supports.
func (b *bench) available(ctx context.Context) ([]trial, error) {
	for _, name := range distinct(b.options.trials, func(t trial) string { return t.subject.Name }) {
		trials := slices.DeleteFunc(slices.Clone(b.options.trials), func(t trial) bool { return t.subject.Name != name })
		err := b.check(ctx, trials[0])
		refused := (*rig.RefusedError)(nil)
		switch {
		case err == nil:
			s := trials[0].subject
			b.result.Subjects = append(b.result.Subjects, result.Subject{Name: s.Name, About: s.About, ByHand: s.ByHand})
		case errors.As(err, &refused) && !slices.Contains(b.options.required, name):
			b.Logf("leave out %s: %v", name, refused)
			b.result.LeftOut[name] = refused.Reason
		default:
			return nil, err
		}
	}
	var trials []trial
	for _, t := range b.options.trials {
		if _, out := b.result.LeftOut[t.subject.Name]; !out {
			trials = append(trials, t)
		}
	}
	if len(trials) == 0 {
		return nil, errors.New("this machine supports no subject")
	}
	return trials, nil
}

// check brings a trial's subject up and down.
func (b *bench) check(ctx context.Context, t trial) error {
	pair, err := b.pair(ctx, t)
	if err != nil {
		return err
	}
	_, _, err = pair.Up(ctx)
	return errors.Join(err, pair.Down())
}

func (b *bench) pair(ctx context.Context, t trial) (*rig.Pair, error) {
	return b.rig.Pair(ctx, t.subject, rig.Setting{
		Link:   withNames([]string{t.at.Link}, rig.Links(), linkName)[0],
		Routes: t.at.Routes,
		Ends:   withNames([]string{t.at.Ends}, rig.EndKinds(), endsName)[0],
		Rules:  withNames([]string{t.at.Rules}, rig.RuleSets(), rulesName)[0],
		Inside: withNames([]string{t.at.Inside}, inet.Families[:], insideName)[0],
	})
}

// measure takes a trial's measures once.
func (b *bench) measure(ctx context.Context, t trial) (err error) {
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
			return fmt.Errorf("measure %s of %s, %v: %w", m.name, t.subject.Name, t.at, err)
		}
		for i, f := range m.figures {
			b.result.Add(t.at, t.subject.Name, f.Name, values[i])
		}
	}
	return nil
}
