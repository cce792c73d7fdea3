package daemon

import (
	"context"

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
