package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/status"
)

// Colours of ECMA-48, "SGR".
const (
	green  = "32"
	yellow = "33"
	red    = "31"
)

// paint colours text if w is a terminal and NO_COLOR is not set
// (https://no-color.org).
func paint(w io.Writer, colour, text string) string {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok || colour == "" || os.Getenv("NO_COLOR") != "" {
		return text
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// table prints rows in columns; the first row holds the headings. An empty cell
// becomes a dash, so that every row has as many words as the headings.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, strings.ReplaceAll(orDash(cell), "\t", " "))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // no output is part of a page
	return e.Encode(v)
}

// formatBytes formats a number of bytes with three digits and a binary unit.
func formatBytes(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len("KMGTP")-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.3g %ciB", value, "KMGTP"[unit])
}

func formatExpiry(expires time.Time, reserved bool) string {
	switch left := time.Until(expires).Round(time.Second); {
	case reserved:
		return "reserved, does not expire"
	case expires.IsZero():
		return "expiry unknown"
	case left <= 0:
		return fmt.Sprintf("expired %v ago", -left)
	default:
		return fmt.Sprintf("expires in %v", left)
	}
}

// formatOwnExpiry formats the end of the daemon's own lease.
func formatOwnExpiry(l *status.Lease) string {
	if l.ExpiresAt.IsZero() && !l.Reserved {
		return "does not expire"
	}
	return formatExpiry(l.ExpiresAt, l.Reserved)
}

// Limits above which peerState reports a peer; the status page has the same.
const (
	lossLimit = 0.05 // share of lost probes
	slowLimit = 0.1  // round trip in seconds
)

// peerState describes whether a peer can be reached, as far as the daemon knows.
func peerState(peer status.Peer) (text, colour string) {
	m := peer.Probe
	switch {
	case peer.Problem != "":
		return peer.Problem, red
	case m == nil || m.Since.IsZero():
		return "unknown", ""
	case m.Silent:
		return "silent for " + time.Since(m.Since).Round(time.Second).String(), red
	case len(peer.OffloadFaults) > 0:
		return "offload fault: " + peer.OffloadFaults[0].Layer, yellow
	case m.Loss > lossLimit:
		return "loses packets", yellow
	case m.RTTSeconds > slowLimit:
		return "slow", yellow
	}
	return "answers", green
}
