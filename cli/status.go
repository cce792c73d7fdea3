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

var statusCommand = command{
	name: "status", summary: "show the state of the daemon on this host",
	detail: "The exit code is 3 if the daemon is not ready, and 1 if no daemon answers.",
	json:   "print the JSON of /api/v1/status",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		s := newStatusClient(fs)
		watch := fs.Bool("watch", false, "print every 2 seconds, until a signal")
		once := func(ctx context.Context) error {
			r, body, err := s.report(ctx)
			if err != nil {
				return err
			}
			if p.json {
				_, err = p.Stdout.Write(body)
			} else {
				err = printStatus(p.Stdout, r)
			}
			if err == nil && !r.Ready {
				err = errNegative
			}
			return err
		}
		return func(ctx context.Context, _ []string) error {
			if !*watch {
				return once(ctx)
			}
			return repeatStatus(ctx, p, once)
		}
	},
}

// repeatStatus calls once until ctx ends. It prints errors, since the daemon may
// start again.
func repeatStatus(ctx context.Context, p *Program, once func(context.Context) error) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		if err := once(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errNegative) {
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
	if r.Node.PublicIPv6.IsValid() {
		row("host, IPv6", "%v, interface %s, MTU %d", r.Node.PublicIPv6, r.Node.IPv6Iface, r.Node.IPv6MTU)
	}
	if l := r.Lease; l != nil {
		row("subnet", "%s, %s", l.Subnets(), formatOwnExpiry(l))
	}
	for _, problem := range r.FamilyProblems {
		row("family", "%s", paint(w, yellow, problem))
	}
	for _, loss := range r.Losses {
		row("loss", "%s", paint(w, yellow, loss))
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
		row("peers", "%s", summarizePeers(w, b.Peers))
		row("drops", "%s", formatDrops(b.Drops))
		if s := b.OffloadSwitch; s != nil {
			row("offloads", "%s", paint(w, yellow, fmt.Sprintf("%s of %s is off, because of a fault of layer %s", s.Feature, s.Device, s.Layer)))
		}
		if f := b.FastPath; f != nil {
			row("fast path", "%s", formatFastPath(f))
		}
	}
	if r.HeldPeers > 0 {
		row("held", "%s", paint(w, yellow, strconv.Itoa(r.HeldPeers)+" peers that the store has lost all at once"))
	}
	if r.LostLogLines > 0 {
		row("log", "%s", paint(w, yellow, strconv.FormatUint(r.LostLogLines, 10)+" lines are lost, as the log's reader did not take them"))
	}
	if r.ConfigRefused != "" {
		row("config", "%s", paint(w, yellow, "a change is refused: "+r.ConfigRefused))
	}
	return t.Flush()
}

// summarizePeers counts the peers by state, and names a few that are not reached.
func summarizePeers(w io.Writer, peers []status.Peer) string {
	const named = 3
	answering, problems := 0, 0
	var bad []string
	for _, peer := range peers {
		text, colour := peerState(peer)
		switch {
		case colour == red:
			bad = append(bad, fmt.Sprintf("%v %s", peer.Subnet, text))
			if peer.Problem != "" {
				problems++
			}
		case peer.Probe != nil && !peer.Probe.Since.IsZero():
			answering++
		}
	}
	text := strconv.Itoa(len(peers))
	for _, count := range []struct {
		n             int
		state, colour string
	}{{answering, "answering", ""}, {len(bad) - problems, "silent", red}, {problems, "with problems", red}} {
		if count.n > 0 {
			text += ", " + paint(w, count.colour, fmt.Sprintf("%d %s", count.n, count.state))
		}
	}
	if len(bad) == 0 {
		return text
	}
	more := ""
	if len(bad) > named {
		bad, more = bad[:named], "; …"
	}
	return text + " (" + strings.Join(bad, "; ") + more + ")"
}

// formatFastPath also names why the fast path is off, if it is.
func formatFastPath(f *status.FastPath) string {
	s := fmt.Sprintf("%d containers, %d packets sent, %d received", f.Containers, f.TxPackets, f.RxPackets)
	if len(f.Off) > 0 {
		s += "; off: " + strings.Join(f.Off, ", ")
	}
	if len(f.Cut) > 0 {
		s += "; " + strings.Join(f.Cut, ", ")
	}
	return s
}

// formatDrops lists the reasons that have occurred.
func formatDrops(drops map[string]uint64) string {
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		if n := drops[reason]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", reason, n))
		}
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, ", ")
}
