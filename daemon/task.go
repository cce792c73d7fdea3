package daemon

import (
	"context"
	"fmt"
	"slices"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"
)

// task runs one part of the daemon. It returns when ctx ends (nil) or the part
// fails (the error); the goroutines that it started have ended by then.
type task func(ctx context.Context) error

// runTogether runs tasks side by side until one fails or ctx ends. It returns the
// first error, after all of them have ended.
func runTogether(ctx context.Context, tasks ...task) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, task := range tasks {
		g.Go(func() error { return task(ctx) })
	}
	return g.Wait()
}

// beside returns a task that does not end before ctx, and does not fail: if run does, it
// logs the loss and the reason, and the status has them.
func (s *state) beside(loss string, run task) task {
	return func(ctx context.Context) error {
		if err := run(ctx); err != nil {
			text := fmt.Sprintf("%s: %v", loss, err)
			log.Warning(text)
			s.update(func(p *progress) { p.losses = append(slices.Clone(p.losses), text) })
			defer s.update(func(p *progress) {
				p.losses = slices.DeleteFunc(slices.Clone(p.losses), func(other string) bool { return other == text })
			})
		}
		<-ctx.Done()
		return nil
	}
}
