package rtnl

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/ratelog"
)

const (
	// passEvery and passBurst bound passes that notifications ask for: a flood
	// of them, or a quarrel with another program about an entry, must not keep
	// a processor busy. A pass over ten thousand peers takes some 50 ms.
	passEvery = 200 * time.Millisecond
	passBurst = 5
	// slowPass is when the kernel is looked at though it has announced nothing,
	// shortened at random by up to a third so that hosts do not do it in phase.
	slowPass = 5 * time.Minute
	// sayEvery is how often a lasting failure is logged again.
	sayEvery = 30 * time.Second
)

// Run makes a pass when the kernel announces a change that touches us, when one
// has failed, and now and then, until ctx ends (nil). It returns an error when
// the kernel's announcements end. It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	listening := make(chan error, 1)
	go func() { listening <- k.watch.run(ctx) }()
	err := k.keep(ctx, listening)
	stop()
	if err != nil {
		return err // it came from the listener, which has ended
	}
	return <-listening
}

func (k *Keeper) keep(ctx context.Context, listening chan error) error {
	limit := rate.NewLimiter(rate.Every(passEvery), passBurst)
	retries := backoff.New()
	var retry <-chan time.Time
	var said time.Time
	for {
		slow := time.NewTimer(slowPass - rand.N(slowPass/3))
		select {
		case <-ctx.Done():
			slow.Stop()
			return nil
		case err := <-listening:
			slow.Stop()
			if ctx.Err() != nil {
				listening <- nil // Run waits for it
				return nil
			}
			return fmt.Errorf("hear of network changes: %w", err)
		case <-k.wake:
		case <-retry:
		case <-slow.C:
		}
		slow.Stop()
		if !k.wasAsked() {
			continue // it is not known yet what is desired
		}
		if limit.Wait(ctx) != nil {
			return nil
		}
		retry = nil
		err := k.sync()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			retries.Reset()
			said = time.Time{}
		default:
			if now := time.Now(); now.Sub(said) >= sayEvery {
				said = now
				ratelog.Errorf("keep kernel state network=%v reason=%q", k.config.Network, err)
			}
			retry = time.After(retries.NextBackOff())
		}
	}
}

func (k *Keeper) wasAsked() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}
