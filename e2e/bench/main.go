// Command bench measures transports between containers of two hosts: each backend
// and data path of flannel, and the same set up by hand: routes without an overlay,
// kernel VXLAN, wireguard-go. All run on this machine, in network namespaces, in interleaved
// rounds:
//
//	round 1: raw, kernel-vxlan, udp-plain, …; round 2: raw, kernel-vxlan, …
//
// A change of the machine's load thus affects all alike. bench prints medians,
// lowest and highest values, and ratios to kernel VXLAN of the same run. Only the
// ratios can be compared between machines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/coreos/flannel/e2e/bench/chart"
	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
	"github.com/coreos/flannel/pkg/netnstest"
)

func main() {
	if code, run := load.Main(); run {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C kills; the next run removes the leftovers.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stdout)
	if err != nil {
		return err
	}
	if o.from != "" {
		r, err := result.Read(o.from)
		if err != nil {
			return err
		}
		// A file from before the present targets keeps its own.
		stored := r.Outcomes
		if r.Evaluate(targets()); len(r.Outcomes) == 0 {
			r.Outcomes = stored
		}
		return report(o, r, stdout)
	}
	programs := o.programs
	for _, path := range []*string{&programs.Flannel, &programs.WireGuardGo} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	b := &bench{Program: &netnstest.Program{Log: stderr}, options: o}
	if b.result, err = newResult(ctx, o); err != nil {
		return err
	}
	err = b.Do(func() error {
		netnstest.Require(b)
		dir, err := os.MkdirTemp("", "flannel-bench-")
		if err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		b.rig = rig.New(b, programs, dir)
		return b.run(ctx)
	})
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if b.result.Rounds == 0 {
		return err
	}
	return errors.Join(err, report(o, b.result, stdout))
}

// report prints a result, and writes its files.
func report(o *options, r *result.Result, stdout io.Writer) error {
	errs := []error{r.Print(stdout, descriptions())}
	if o.json != "" {
		errs = append(errs, r.WriteFile(o.json))
	}
	if o.chart != "" {
		errs = append(errs, chart.WriteFile(o.chart, r))
	}
	return errors.Join(errs...)
}

// descriptions maps the names of links, ends and rules to what they are.
func descriptions() map[string]string {
	about := make(map[string]string)
	for _, l := range rig.Links() {
		about[l.Name] = l.About
	}
	for _, e := range rig.EndKinds() {
		about[e.Name] = e.About
	}
	for _, r := range rig.RuleSets() {
		about[r.Name] = r.About
	}
	return about
}
