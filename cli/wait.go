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

var waitCommand = command{
	name: "wait", summary: "wait until the daemon on this host is ready",
	detail: "For programs that start after flannel and are not systemd units. After -timeout the exit code is 3,\nand the error names what is missing.",
	json:   "print JSON: whether it is ready, and what is missing",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		s := newStatusClient(fs)
		timeout := fs.Duration("timeout", 0, "`time` to wait; 0: no limit")
		return func(ctx context.Context, _ []string) error {
			if *timeout < 0 {
				return fmt.Errorf("-timeout %v is negative", *timeout)
			}
			limited, cancel := ctx, context.CancelFunc(func() {})
			if *timeout > 0 {
				limited, cancel = context.WithTimeout(ctx, *timeout)
			}
			defer cancel()
			return waitReady(ctx, limited, p, s)
		}
	},
}

// waitResult is the output of "wait -json".
type waitResult struct {
	Ready   bool   `json:"ready"`
	Missing string `json:"missing,omitempty"`
}

// waitReady polls until limited ends. A signal ends its parent ctx.
func waitReady(ctx, limited context.Context, p *Program, s *statusClient) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	missing := errors.New("-timeout ended before the first answer")
	for {
		code, body, err := s.get(limited, "/readyz")
		switch {
		case err == nil && code == http.StatusOK:
			return p.print(waitResult{Ready: true}, "")
		case limited.Err() != nil: // the request was cancelled: its error is no answer
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
			if p.json {
				return errors.Join(printJSON(p.Stdout, waitResult{Missing: missing.Error()}), errNegative)
			}
			fmt.Fprintf(p.Stderr, "flannel wait: not ready in time: %v\n", missing)
			return errNegative
		case <-tick.C:
		}
	}
}
