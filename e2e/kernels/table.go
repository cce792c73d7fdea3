package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// The table's rows stand behind its head.
const (
	head = "| line | kernel | `auto` takes | programs by | offloads missing | udp | vxlan | host-gw | wireguard in the kernel | in user space | tests passed | failed | packages not run |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
	absent = "–"
)

// page is a file with the table. Guests that end at the same time enter their rows one
// after the other.
type page struct {
	file string
	mu   sync.Mutex
}

// enter puts a kernel's row into the table, in place of an earlier row of its line.
func (p *page) enter(k kernel, o outcome) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := os.ReadFile(p.file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), head)
	if !found {
		return fmt.Errorf("%s has no table with the head\n%s", p.file, head)
	}
	rows := []string{row(k, o)}
	for strings.HasPrefix(rest, "|") {
		var old string
		if old, rest, _ = strings.Cut(rest, "\n"); lineOf(old) != k.line {
			rows = append(rows, old)
		}
	}
	slices.SortFunc(rows, func(a, b string) int {
		a, b = lineOf(a), lineOf(b)
		switch {
		case a == b:
			return 0
		case older(a, b):
			return -1
		case older(b, a):
			return 1
		}
		return cmp.Compare(a, b)
	})
	return os.WriteFile(p.file, []byte(before+head+strings.Join(rows, "\n")+"\n"+rest), 0o644)
}

// lineOf returns the first cell of a row.
func lineOf(row string) string {
	cells := strings.Split(row, "|")
	if len(cells) < 2 {
		return ""
	}
	return strings.TrimSpace(cells[1])
}

func row(k kernel, o outcome) string {
	bad := absent
	if names := o.bad(); len(names) > 0 {
		bad = strings.Join(names, " ")
	}
	cells := []string{k.line, k.release, "`" + o.path + "`", o.hooks(), o.missing()}
	for _, b := range []string{"udp", "vxlan", "host-gw", "wireguard kernel", "wireguard userspace"} {
		cells = append(cells, o.backend(b))
	}
	n := fmt.Sprint(len(o.ends(passed)))
	if lacking := len(o.ends(lacking)); lacking > 0 {
		n += fmt.Sprintf(", and %d not possible", lacking)
	}
	if len(o.lacks) > 0 {
		n += " without " + strings.Join(slices.Sorted(maps.Keys(o.lacks)), ", ")
	}
	cells = append(cells, n, bad, cmp.Or(strings.Join(o.unrun(), " "), absent))
	return "| " + strings.Join(cells, " | ") + " |"
}

var (
	hooksPart   = regexp.MustCompile(`, attached by ([^;]*)`)
	missingPart = regexp.MustCompile(`; off: (.*)`)
	parenthesis = regexp.MustCompile(` \([^()]*\)`)
)

// hooks returns how the eBPF programs are attached, or why there are none.
func (o outcome) hooks() string {
	if m := hooksPart.FindStringSubmatch(o.reason); m != nil {
		return m[1]
	}
	return o.reason
}

// missing returns the names of the offloads that the kernel lacks.
func (o outcome) missing() string {
	m := missingPart.FindStringSubmatch(o.reason)
	if m == nil {
		return absent
	}
	return parenthesis.ReplaceAllString(m[1], "")
}
