package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
)

// options is the command line: what to measure, and how long.
type options struct {
	programs rig.Programs

	subjects  []rig.Subject
	measures  []measure
	links     []rig.Link
	routes    []int
	scenarios []result.Scenario
	// wanted are the subjects that were named, which must not be left out.
	wanted []string

	rounds, seconds int
	congestion      string
	quick           bool
	json, chart     string
}

// maxRoutes is what the made-up peers' network has room for, with a margin.
const maxRoutes = 60000

// parseOptions reads the arguments. Errors: flag.ErrHelp after the usage went
// to usage, or what is wrong.
func parseOptions(args []string, usage io.Writer) (*options, error) {
	o := &options{}
	var subjects, names, links, routes string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.StringVar(&o.programs.Flannel, "flannel", "bin/flannel", "`program` to measure")
	fs.StringVar(&o.programs.WireGuardGo, "wireguard-go", "bin/wireguard-go", "`program` to compare wireguard with; it is left out where there is none")
	fs.StringVar(&subjects, "subjects", "", "comma-separated `names` of what to measure, default all: "+listNames(rig.Subjects(), subjectName))
	fs.StringVar(&names, "measures", "", "comma-separated `names` of what to measure of it, default all: "+listNames(measures(), measureName))
	fs.StringVar(&links, "links", "on,off", "comma-separated `names` of the link's variants: "+listNames(rig.Links(), linkName))
	fs.StringVar(&routes, "routes", "1,1000,10000", "comma-separated `numbers` of routes; all but the first on the first link only")
	fs.IntVar(&o.rounds, "rounds", 5, "`number` of samples of each figure")
	fs.IntVar(&o.seconds, "seconds", 3, "`length` of each measurement")
	fs.StringVar(&o.congestion, "congestion", defaultCongestion(), "TCP congestion `control`")
	fs.StringVar(&o.json, "json", "", "`file` to write the result to")
	fs.StringVar(&o.chart, "chart", "", "`file` to draw the ratios into, as SVG")
	fs.BoolVar(&o.quick, "quick", false, "try everything out in a minute, without waiting for a quiet machine: other defaults, figures without worth")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(usage)
		fmt.Fprintf(usage, "Usage: bench [flags]\n\nMeasures ways of carrying packets between two hosts on this machine.\n\nFlags:\n")
		fs.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w (see bench -help)", err)
	case fs.NArg() > 0:
		return nil, fmt.Errorf("argument %q is not a flag (see bench -help)", fs.Arg(0))
	}
	if o.quick {
		for name, value := range map[string]string{"rounds": "1", "seconds": "1", "links": "on", "routes": "1", "measures": "tcp1,udp64,udp-rr"} {
			if !given(fs, name) {
				if err := fs.Set(name, value); err != nil {
					return nil, err
				}
			}
		}
	}
	return o, o.choose(subjects, names, links, routes)
}

func given(fs *flag.FlagSet, name string) (found bool) {
	fs.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func (o *options) choose(subjects, names, links, routes string) (err error) {
	if o.rounds < 1 || o.seconds < 1 {
		return fmt.Errorf("-rounds %d and -seconds %d must be 1 or more", o.rounds, o.seconds)
	}
	if o.subjects, err = pick("subjects", subjects, rig.Subjects(), subjectName); err != nil {
		return err
	}
	if subjects != "" {
		for _, s := range o.subjects {
			o.wanted = append(o.wanted, s.Name)
		}
	}
	if o.measures, err = pick("measures", names, measures(), measureName); err != nil {
		return err
	}
	if o.links, err = pick("links", links, rig.Links(), linkName); err != nil {
		return err
	}
	for item := range strings.SplitSeq(routes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(item))
		if err != nil || n < 1 || n > maxRoutes {
			return fmt.Errorf("-routes: %q is not a number from 1 to %d", item, maxRoutes)
		}
		o.routes = append(o.routes, n)
	}
	for _, l := range o.links {
		o.scenarios = append(o.scenarios, result.Scenario{Link: l.Name, Routes: o.routes[0]})
	}
	for _, n := range o.routes[1:] {
		o.scenarios = append(o.scenarios, result.Scenario{Link: o.links[0].Name, Routes: n})
	}
	return nil
}

func subjectName(s rig.Subject) string { return s.Name }
func measureName(m measure) string     { return m.name }
func linkName(l rig.Link) string       { return l.Name }

// pick chooses those of all that a comma-separated list names, in the order of
// all; an empty list is all.
func pick[T any](flag, list string, all []T, name func(T) string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	var wanted []string
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if !slices.ContainsFunc(all, func(t T) bool { return name(t) == item }) {
			return nil, fmt.Errorf("-%s: %q is not one of %s", flag, item, listNames(all, name))
		}
		wanted = append(wanted, item)
	}
	var picked []T
	for _, t := range all {
		if slices.Contains(wanted, name(t)) {
			picked = append(picked, t)
		}
	}
	return picked, nil
}

func listNames[T any](all []T, name func(T) string) string {
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = name(t)
	}
	return strings.Join(names, ", ")
}

// defaultCongestion is the machine's own. A network namespace begins with that
// of its maker.
func defaultCongestion() string {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "cubic" // Linux's own default
	}
	return strings.TrimSpace(string(text))
}
