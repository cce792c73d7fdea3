package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coreos/flannel/pkg/status"
)

// watchInterval is how often -watch asks.
const watchInterval = 2 * time.Second

var statusCommand = command{
	name: "status", summary: "show what the daemon on this host does",
	detail: "It exits with 3 if the daemon is not ready, and with 1 if there is none.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		var s statusSource
		s.register(fs)
		asJSON := fs.Bool("json", false, "print the JSON of /api/v1/status")
		watch := fs.Bool("watch", false, "print it again every 2 seconds, until a signal")
		once := func(ctx context.Context) error {
			r, body, err := s.report(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				_, err = p.Stdout.Write(body)
			} else {
				err = printStatus(p.Stdout, r)
			}
			if err == nil && !r.Ready {
				err = errNo
			}
			return err
		}
		return func(ctx context.Context, _ []string) error {
			if !*watch {
				return once(ctx)
			}
			return p.repeat(ctx, once)
		}
	},
}

// repeat asks until ctx ends. A daemon that is away now may come back.
func (p *Program) repeat(ctx context.Context, once func(context.Context) error) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		if err := once(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errNo) {
			fmt.Fprintf(p.Stderr, "flannel status: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			fmt.Fprintln(p.Stdout)
		}
	}
}

func printStatus(w io.Writer, r *status.Report) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	if r.Ready {
		row("state", "%s", paint(w, green, "ready"))
	} else {
		row("state", "%s: %s", paint(w, red, "not ready"), strings.Join(r.NotReady, "; "))
	}
	row("version", "%s, up %v", r.Version, time.Duration(r.UptimeSeconds)*time.Second)
	if r.Node.PublicIP.IsValid() {
		row("host", "%v, interface %s, MTU %d", r.Node.PublicIP, r.Node.Iface, r.Node.MTU)
	}
	if l := r.Lease; l != nil {
		row("subnet", "%v, %s", l.Subnet, untilWords(l.ExpiresAt, l.Reserved))
	}
	if s := r.Store; s.API != "" && !s.Since.IsZero() {
		state := paint(w, green, "reachable")
		if !s.Reachable {
			state = paint(w, red, "not reachable")
		}
		row("store", "etcd API %s, %s for %v", s.API, state, time.Since(s.Since).Round(time.Second))
	}
	if b := r.Backend; b != nil {
		row("backend", "%s, MTU %d, data path %s (%s)", b.Type, b.MTU, orDash(b.DataPath), orDash(b.DataPathReason))
		row("peers", "%s", peerWords(w, b.Peers))
		row("drops", "%s", dropWords(b.Drops))
	}
	if r.HeldPeers > 0 {
		row("held", "%s", paint(w, yellow, strconv.Itoa(r.HeldPeers)+" peers that the store has lost all at once"))
	}
	if r.ConfigRefused != "" {
		row("config", "%s", paint(w, yellow, "a change is refused: "+r.ConfigRefused))
	}
	return t.Flush()
}

// untilWords says how long a lease lasts.
func untilWords(expires time.Time, reserved bool) string {
	switch left := time.Until(expires).Round(time.Second); {
	case reserved:
		return "reserved, without an end"
	case expires.IsZero():
		return "until an unknown time"
	case left <= 0:
		return fmt.Sprintf("expired %v ago", -left)
	default:
		return fmt.Sprintf("expires in %v", left)
	}
}

// dropWords lists the reasons that have occurred.
func dropWords(drops map[string]uint64) string {
	var words []string
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		if n := drops[reason]; n > 0 {
			words = append(words, fmt.Sprintf("%s %d", reason, n))
		}
	}
	if words == nil {
		return "none"
	}
	return strings.Join(words, ", ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
