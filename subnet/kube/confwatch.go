package kube

import (
	"context"
	"os"
	"time"

	"github.com/coreos/flannel/pkg/clock"
)

// fileInterval is how often the file of the configuration is looked at, on the ticks
// of pkg/clock. A kubelet takes up to a minute to write a changed ConfigMap.
const fileInterval = 5 * time.Second

// NotifyConfig implements subnet.ConfigNotifier. Another file behind the path is a
// change, too: an update of a ConfigMap replaces a symbolic link.
func (s *Store) NotifyConfig(ctx context.Context, changed func()) error {
	var seen os.FileInfo
	for {
		now, err := os.Stat(s.config.NetConfig)
		if err == nil && (seen == nil || !os.SameFile(seen, now) || !now.ModTime().Equal(seen.ModTime())) {
			seen = now
			changed()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(clock.UntilTick(fileInterval)):
		}
	}
}
