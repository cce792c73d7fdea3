package daemon

import (
	"context"
	"fmt"
	"slices"

	log "github.com/golang/glog"
)

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
