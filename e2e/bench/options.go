package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
	"github.com/coreos/flannel/pkg/inet"
)

// options is the command line: what to measure, and how long.
type options struct {
	programs rig.Programs

	// trials are the trials of each round.
	trials []trial
	// required are the subjects named by -subjects, which must not be left out.
	required []string

	rounds, seconds int
	congestion      string
	quick           bool
	json, chart     string
	// from is an earlier run's result to report; "": measure.
	from string
}

// parseOptions reads the arguments. For -help, it writes to usage and returns
// flag.ErrHelp.
func parseOptions(args []string, usage io.Writer) (*options, error) {
	o := &options{}
	var plan, subjects, names string
	var d dimensions
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.StringVar(&o.programs.Flannel, "flannel", "bin/flannel", "`program` to measure")
	fs.StringVar(&o.programs.WireGuardGo, "wireguard-go", "bin/wireguard-go", "`program` to compare wireguard with; it is left out where there is none")
	fs.StringVar(&plan, "plan", "all", "`name` of what is measured where: all, each of -subjects and -measures in each of -links, -ends, -rules, -routes and -inside; short, what the targets are about, in 30 minutes (9 rounds of 1 second)")
	fs.StringVar(&subjects, "subjects", "", "comma-separated `names` of what to measure, default all: "+listNames(rig.Subjects(), subjectName))
	fs.StringVar(&names, "measures", "", "comma-separated `names` of what to measure of it, default all: "+listNames(measures(), measureName))
	fs.StringVar(&d.links, "links", "on,off", "comma-separated `names` of the link's variants: "+listNames(rig.Links(), linkName))
	fs.StringVar(&d.ends, "ends", "container,nested", "comma-separated `names` of what the load runs in: "+listNames(rig.EndKinds(), endsName)+"; all but the first on the first link only")
	fs.StringVar(&d.rules, "rules", "masq,none,rules", "comma-separated `names` of the hosts' firewall rules: "+listNames(rig.RuleSets(), rulesName)+"; all but the first on the first link only")
	fs.StringVar(&d.routes, "routes", "1,1000,10000", "comma-separated `numbers` of routes; all but the first on the first link only")
	fs.StringVar(&d.inside, "inside", result.InsideIPv4, "comma-separated IP `versions` of the load's packets: "+listNames(inet.Families[:], insideName)+"; all but the first on the first link only")
	fs.IntVar(&o.rounds, "rounds", 7, "`number` of samples of each figure")
	fs.IntVar(&o.seconds, "seconds", 3, "`length` of each measurement")
	fs.StringVar(&o.congestion, "congestion", defaultCongestion(), "TCP congestion `control`")
	fs.StringVar(&o.json, "json", "", "`file` to write the result to")
	fs.StringVar(&o.chart, "chart", "", "`file` to draw the ratios into, as SVG")
	fs.StringVar(&o.from, "from", "", "show, and draw, what an earlier run has written to `file`, and measure nothing")
	fs.BoolVar(&o.quick, "quick", false, "try everything out in half a minute, without waiting for a quiet machine: other defaults, figures without worth")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(usage)
		fmt.Fprintf(usage, "Usage: bench [flags]\n\nMeasures ways of carrying packets between containers of two hosts, on this machine.\n\nFlags:\n")
		fs.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w (see bench -help)", err)
	case fs.NArg() > 0:
		return nil, fmt.Errorf("argument %q is not a flag (see bench -help)", fs.Arg(0))
	}
	if plan == "short" && slices.ContainsFunc([]string{"links", "ends", "rules", "routes", "inside"}, func(name string) bool { return given(fs, name) }) {
		return nil, errors.New("-plan short sets the scenarios: omit -links, -ends, -rules, -routes and -inside")
	}
	for _, name := range slices.Sorted(maps.Keys(defaults(plan, o.quick))) {
		if !given(fs, name) {
			if err := fs.Set(name, defaults(plan, o.quick)[name]); err != nil {
				return nil, err
			}
		}
	}
	return o, o.selectTrials(plan, subjects, names, d)
}

// defaults returns the flags' defaults of a plan or of -quick that differ from the
// usual ones.
func defaults(plan string, quick bool) map[string]string {
	switch {
	case quick && plan == "short":
		return map[string]string{"rounds": "1", "seconds": "1"}
	case quick:
		return map[string]string{"rounds": "1", "seconds": "1", "links": "on", "ends": "container", "rules": "masq", "routes": "1", "measures": "tcp1,udp-rr,crr"}
	case plan == "short":
		return map[string]string{"rounds": "9", "seconds": "1"}
	}
	return nil
}

func given(fs *flag.FlagSet, name string) (found bool) {
	fs.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func (o *options) selectTrials(plan, subjects, names string, d dimensions) error {
	if o.rounds < 1 || o.seconds < 1 {
		return fmt.Errorf("-rounds %d and -seconds %d must be 1 or more", o.rounds, o.seconds)
	}
	chosen, err := pick("subjects", subjects, rig.Subjects(), subjectName)
	if err != nil {
		return err
	}
	if subjects != "" {
		for _, s := range chosen {
			o.required = append(o.required, s.Name)
		}
	}
	measured, err := pick("measures", names, measures(), measureName)
	if err != nil {
		return err
	}
	switch plan {
	case "all":
		scenarios, err := d.scenarios()
		if err != nil {
			return err
		}
		o.trials = interleave(cross(scenarios, chosen, measured))
	case "short":
		o.trials = interleave(restrict(short(), chosen, measured))
	default:
		return fmt.Errorf("-plan: %q is not one of all, short", plan)
	}
	if len(o.trials) == 0 {
		return fmt.Errorf("-plan %s has none of the chosen -subjects and -measures", plan)
	}
	return nil
}

// defaultCongestion returns this namespace's congestion control, which a new
// network namespace inherits.
func defaultCongestion() string {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "cubic" // Linux's own default
	}
	return strings.TrimSpace(string(text))
}
