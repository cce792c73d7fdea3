package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// waitInterval is how often wait asks.
const waitInterval = 250 * time.Millisecond

var waitCommand = command{
	name: "wait", summary: "wait until the daemon on this host is ready",
	detail: "For what starts after it and is not a systemd unit. It exits with 3 if that takes too long,\nand then says what is missing.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		var s statusSource
		s.register(fs)
		asJSON := fs.Bool("json", false, "print JSON: whether it is ready, and what is missing")
		timeout := fs.Duration("timeout", 0, "`time` to wait for; 0: as long as it takes")
		return func(ctx context.Context, _ []string) error {
			if *timeout < 0 {
				return fmt.Errorf("-timeout %v is negative", *timeout)
			}
			limited, cancel := ctx, context.CancelFunc(func() {})
			if *timeout > 0 {
				limited, cancel = context.WithTimeout(ctx, *timeout)
			}
			defer cancel()
			return p.waitReady(ctx, limited, &s, *asJSON)
		}
	},
}

// waited is what "wait -json" prints.
type waited struct {
	Ready   bool   `json:"ready"`
	Missing string `json:"missing,omitempty"`
}

// waitReady asks until limited ends; its parent ctx ends with a signal.
func (p *Program) waitReady(ctx, limited context.Context, s *statusSource, asJSON bool) error {
	tick := time.NewTicker(waitInterval)
	defer tick.Stop()
	missing := errors.New("there was no time to ask")
	for {
		code, body, err := s.get(limited, "/readyz")
		switch {
		case err == nil && code == http.StatusOK:
			if asJSON {
				return printJSON(p.Stdout, waited{Ready: true})
			}
			return nil
		case limited.Err() != nil: // the question was cut short and says nothing
		case err != nil:
			missing = err
		default:
			missing = errors.New(strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", "; "))
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("ended by a signal: %w", missing)
			}
			if asJSON {
				return errors.Join(printJSON(p.Stdout, waited{Missing: missing.Error()}), errNo)
			}
			fmt.Fprintf(p.Stderr, "flannel wait: not ready in time: %v\n", missing)
			return errNo
		case <-tick.C:
		}
	}
}
