package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// Colours of ECMA-48, "SGR".
const (
	green  = "32"
	yellow = "33"
	red    = "31"
)

// paint colours text where w is a terminal and its user wants colour
// (https://no-color.org).
func paint(w io.Writer, colour, text string) string {
	f, ok := w.(*os.File)
	if !ok || colour == "" || os.Getenv("NO_COLOR") != "" {
		return text
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// table prints rows in columns, the first row being the headings. An empty cell
// becomes a dash, so that every row has as many words as the headings.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				cell = "-"
			}
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, strings.ReplaceAll(cell, "\t", " "))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // it is not put into a page
	return e.Encode(v)
}

// bytesOf says a number of bytes with three digits and a binary unit.
func bytesOf(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len("KMGTP")-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.3g %ciB", value, "KMGTP"[unit])
}
