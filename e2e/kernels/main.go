// Command kernels runs the tests on other kernels. It boots Debian's kernel of each
// line in a virtual machine. Inside, it runs the tests that touch the kernel. It enters
// the results into the table of docs/kernels.md.
//
//	suites ─► kernel ──┐
//	suites ─► root ────┼─► guest ─► outcome ─► table
//	go test -c ─► job ─┘
//
// Glossary: a line is a series of releases, such as 6.1, of which Debian serves the
// newest; a guest is a virtual machine; a job is the disk with the programs that the
// guest runs and the files that come back.
//
// The guest is emulated by QEMU without hardware support. Its clock counts
// instructions (-icount), so time-outs inside do not depend on the load outside.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	_ "embed"
)

// lines are those that users run, and the newest ones.
var lines = []string{"5.10", "6.1", "6.12", "6.18", "7.2", "7.3", "6.1-cloud", "7.3-cloud"}

// needed are lines whose absence from Debian's suites is a failure.
var needed = []string{"5.10", "6.1", "6.12"}

type options struct {
	dir      string // of disks and kernels, kept between runs
	page     *page  // nil: none
	run      string // pattern of tests
	skip     string // pattern of tests; "": none
	packages string
	command  string // in place of the tests
	add      bool
	fetch    bool // no tests
	timeout  time.Duration
	guests   int // at a time
	memory   int // MiB
	append   string
	cards    string
	lines    []string
	// conditions has each line boot once in each condition. suffix is that of its results.
	conditions bool
	suffix     string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "kernels: %v\n", err)
		os.Exit(1)
	}
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	fs := flag.NewFlagSet("kernels", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.StringVar(&o.dir, "dir", filepath.Join(cache, "flannel-kernels"), "`folder` of disks and kernels, kept between runs")
	pageFile := fs.String("page", "docs/kernels.md", "`file` whose table gets the results; empty: none")
	fs.StringVar(&o.run, "run", "", "`pattern` of the tests to run; empty: all")
	fs.StringVar(&o.skip, "skip", "", "`pattern` of tests that do not run")
	fs.StringVar(&o.packages, "packages", strings.Join(packages, ","), "comma-separated `packages` to test")
	fs.StringVar(&o.command, "command", "", "shell `text` to run in place of the tests; what it leaves in out/ comes to DIR/out-LINE")
	fs.BoolVar(&o.fetch, "fetch", false, "get the disks and kernels, and run nothing")
	fs.BoolVar(&o.add, "add", false, "keep the results of earlier runs with the same kernel; of each test the last result counts")
	fs.DurationVar(&o.timeout, "timeout", 3*time.Hour, "`time` for each guest")
	fs.IntVar(&o.guests, "guests", 1, "`number` of guests at a time; each takes a processor")
	fs.IntVar(&o.memory, "memory", 2048, "`MiB` of memory of each guest")
	fs.StringVar(&o.append, "append", "mitigations=off", "`arguments` of the kernel")
	fs.StringVar(&o.cards, "cards", "", "QEMU's `model` of two network cards that are joined, eth0 and eth1, such as virtio-net-pci; empty: none")
	fs.BoolVar(&o.conditions, "conditions", false, "run a few end-to-end tests once in each condition, such as ipv6.disable=1, in place of the table")
	fs.Usage = func() {
		fmt.Fprintf(usage, "Usage: ./test -kernels [flags] [LINE…]\n\nRuns the tests on Debian's kernels %s, or on those of each LINE.\n\nFlags:\n", strings.Join(lines, ", "))
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.guests < 1 {
		return o, fmt.Errorf("-guests is %d, must be 1 or more", o.guests)
	}
	if *pageFile != "" {
		o.page = &page{file: *pageFile}
	}
	if o.lines = fs.Args(); len(o.lines) == 0 {
		o.lines = lines
	}
	if o.conditions {
		o.packages = "e2e"
	}
	o.dir, err = filepath.Abs(o.dir)
	return o, err
}

// run tests each line. A failure of one does not end the others.
func run(ctx context.Context, o options, out io.Writer) error {
	if err := checkTools(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	d := &debian{dir: o.dir}
	root, err := d.root(ctx)
	if err != nil {
		return err
	}
	var j *job
	if !o.fetch {
		if j, err = newJob(ctx, o); err != nil {
			return err
		}
		defer j.remove()
	}
	errs := make([]error, len(o.lines))
	var guests errgroup.Group
	guests.SetLimit(o.guests)
	for i, line := range o.lines {
		if ctx.Err() != nil {
			break
		}
		k, err := d.kernel(ctx, line)
		if errors.Is(err, errNoKernel) && !slices.Contains(needed, line) {
			fmt.Fprintf(out, "%s: not tested: %v\n", line, err)
			continue
		}
		if err != nil {
			errs[i] = fmt.Errorf("%s: %w", line, err)
			continue
		}
		if o.fetch {
			continue
		}
		guests.Go(func() error {
			err := o.each(func(o options) error {
				return test(ctx, o, out, guest{kernel: k, root: root, job: j, tests: o.run, memory: o.memory, append: o.append, cards: o.cards})
			})
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", line, err)
			}
			return nil
		})
	}
	_ = guests.Wait() // errs has the errors of all
	return errors.Join(errs...)
}

// test runs the job in a guest, prints its results, and enters them into the page.
func test(ctx context.Context, o options, out io.Writer, g guest) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	name := g.kernel.line + o.suffix
	fmt.Fprintf(out, "== %s: Linux %s\n", name, g.kernel.release)
	results := filepath.Join(o.dir, "out-"+name)
	fresh := results + "-new"
	runErr := g.run(ctx, name, out, fresh)
	if err := keep(fresh, results, o.add); err != nil || o.command != "" {
		return errors.Join(runErr, err)
	}
	r, err := readOutcome(results, g.kernel)
	if err != nil {
		return errors.Join(runErr, err)
	}
	fmt.Fprintf(out, "%s: %d passed, %d failed, %d skipped, %d not possible on this kernel\n",
		name, len(r.ends(passed)), len(r.ends(failed, unfinished)), len(r.ends(skipped)), len(r.ends(lacking)))
	if o.page != nil {
		if err := o.page.enter(g.kernel, r); err != nil {
			return errors.Join(runErr, err)
		}
	}
	return errors.Join(runErr, r.err())
}

// tools has a line for each program or file that this program needs, with its Debian
// package.
//
//go:embed tools
var tools string

func checkTools() error {
	var missing []string
	for line := range strings.Lines(tools) {
		program, pkg, _ := strings.Cut(strings.TrimSpace(line), " ")
		_, err := exec.LookPath(program)
		if filepath.IsAbs(program) {
			_, err = os.Stat(program)
		}
		if err != nil {
			missing = append(missing, pkg)
		}
	}
	if missing != nil {
		return fmt.Errorf("tools are missing; install: apt-get install --no-install-recommends %s", strings.Join(missing, " "))
	}
	return nil
}

// shell runs a program and returns its output. The error has what it wrote to its
// standard error.
func shell(ctx context.Context, dir, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // so that it ends its own processes
	c.WaitDelay = 10 * time.Second
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, complaint.String())
	}
	return string(out), nil
}
