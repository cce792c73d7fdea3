package main

import (
	"regexp"
	"slices"
	"strings"
)

var (
	current   = regexp.MustCompile(`^=== (RUN|CONT|NAME) +(\S+)`)
	verdictOf = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+)`)
	exitOf    = regexp.MustCompile(`^EXIT (\d+)$`)
	// lackOf matches what netnstest.Feature logs.
	lackOf = regexp.MustCompile(`this kernel lacks (.+?) \((CONFIG_\w+|Linux [\d.]+)\)`)
)

// add enters the verdicts in the output of a package's test binary. The output of
// several runs is one behind the other.
func (o *outcome) add(pkg, text string, k kernel) {
	r := newReading(o, pkg)
	for line := range strings.Lines(text) {
		r.add(strings.TrimSpace(line), k)
	}
	if r.began {
		r.end("")
	}
}

// reading reads the output of one run of a package's test binary.
type reading struct {
	outcome *outcome
	pkg     string
	began   bool
	test    string          // that logs
	lacking map[string]bool // tests that miss a feature of the kernel
	wrong   map[string]bool // tests that miss one that the kernel has
	running []string
	failed  bool
}

func newReading(o *outcome, pkg string) reading {
	return reading{outcome: o, pkg: pkg, lacking: make(map[string]bool), wrong: make(map[string]bool)}
}

func (r *reading) add(line string, k kernel) {
	if m := exitOf.FindStringSubmatch(line); m != nil {
		r.end(m[1])
		return
	}
	r.began = true
	if m := current.FindStringSubmatch(line); m != nil {
		r.test = m[2]
		if m[1] == "RUN" {
			r.running = append(r.running, r.test)
		}
	}
	if m := lackOf.FindStringSubmatch(line); m != nil {
		r.outcome.lacks[m[1]] = true
		r.lacking[r.test] = true
		r.wrong[r.test] = r.wrong[r.test] || k.has(m[2])
	}
	if m := verdictOf.FindStringSubmatch(line); m != nil {
		r.enter(m[2], verdict(m[1]))
	}
}

// enter enters the verdict of a test. A test that misses a feature which the kernel has
// has failed.
func (r *reading) enter(test string, v verdict) {
	switch {
	case r.wrong[test]:
		v = failed
	case v == skipped && r.lacking[test]:
		v = lacking
	}
	r.outcome.verdicts[r.pkg+":"+test] = v
	r.failed = r.failed || v == failed
	r.running = slices.DeleteFunc(r.running, func(name string) bool { return name == test })
}

// end enters the end of the binary with an exit code, or of the guest with none. Tests
// that were running are unfinished. If no test explains the code, the package has failed.
func (r *reading) end(exit string) {
	for _, test := range r.running {
		r.outcome.verdicts[r.pkg+":"+test] = unfinished
		r.failed = true
	}
	if exit == "0" || r.failed {
		delete(r.outcome.verdicts, r.pkg)
	} else {
		r.outcome.verdicts[r.pkg] = failed
	}
	*r = newReading(r.outcome, r.pkg)
}
