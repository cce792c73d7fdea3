package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
)

func TestOptions(t *testing.T) {
	o, err := parseOptions(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds < 7 || subjectsOf(o) != listNames(rig.Subjects(), subjectName) || measuresOf(o) != listNames(measures(), measureName) || o.congestion == "" || len(o.required) != 0 {
		t.Errorf("defaults are %+v", o)
	}
	want := []result.Scenario{usual, offLink(), nested(), noRules(), manyRules(), {Link: "on", Routes: 1000, Ends: "container", Rules: "masq", Inside: "4"}, manyPeers()}
	if diff := cmp.Diff(want, scenariosOf(o)); diff != "" {
		t.Error(diff)
	}

	o, err = parseOptions([]string{"-quick", "-rounds=2", "-subjects=udp-plain, raw", "-measures=tcp4", "-links=off", "-routes=7, 9", "-ends=local,host", "-rules=none"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 2 || o.seconds != 1 || subjectsOf(o) != "raw, udp-plain" || measuresOf(o) != "tcp4" {
		t.Errorf("a given flag is overridden: %+v", o)
	}
	if diff := cmp.Diff([]string{"raw", "udp-plain"}, o.required); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]result.Scenario{
		{Link: "off", Routes: 7, Ends: "host", Rules: "none", Inside: "4"}, {Link: "off", Routes: 7, Ends: "local", Rules: "none", Inside: "4"},
		{Link: "off", Routes: 9, Ends: "host", Rules: "none", Inside: "4"},
	}, scenariosOf(o)); diff != "" {
		t.Error(diff)
	}
}

// IPv6 inside is a scenario of its own, alone or beside IPv4.
func TestInside(t *testing.T) {
	for arg, want := range map[string][]result.Scenario{"4,6": {usual, insideV6()}, "6": {insideV6()}} {
		o, err := parseOptions([]string{"-quick", "-inside=" + arg}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, scenariosOf(o)); diff != "" {
			t.Errorf("-inside=%s: %s", arg, diff)
		}
		if next := o.trials[1]; len(want) == 2 && (next.at != insideV6() || next.subject.Name != o.trials[0].subject.Name) {
			t.Errorf("-inside=%s: the second trial is of %s, %v", arg, next.subject.Name, next.at)
		}
	}
}

func subjectsOf(o *options) string {
	return strings.Join(distinct(o.trials, func(t trial) string { return t.subject.Name }), ", ")
}

func scenariosOf(o *options) []result.Scenario {
	return distinct(o.trials, func(t trial) result.Scenario { return t.at })
}

func measuresOf(o *options) string {
	var found []measure
	for _, m := range measures() {
		if slices.ContainsFunc(o.trials, func(t trial) bool { return slices.ContainsFunc(t.measures, m.is) }) {
			found = append(found, m)
		}
	}
	return listNames(found, measureName)
}

// The short plan has the cells of every target.
func TestShortPlan(t *testing.T) {
	o, err := parseOptions([]string{"-plan=short"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 9 || o.seconds != 1 || len(o.required) != 0 {
		t.Errorf("%d rounds of %d s, want 9 of 1", o.rounds, o.seconds)
	}
	r := &result.Result{}
	for _, t := range o.trials {
		for _, m := range t.measures {
			for _, f := range m.figures {
				r.Add(t.at, t.subject.Name, f.Name, 1)
			}
		}
	}
	r.Evaluate(targets())
	if len(r.Outcomes) != len(targets()) {
		t.Errorf("%d targets are evaluated, of %d", len(r.Outcomes), len(targets()))
	}
	for _, c := range r.Cells {
		if len(c.Samples) != 1 {
			t.Errorf("%v is measured %d times a round", c, len(c.Samples))
		}
	}
	if subjectsOf(o) != listNames(rig.Subjects(), subjectName) {
		t.Errorf("subjects are %s", subjectsOf(o))
	}

	o, err = parseOptions([]string{"-plan=short", "-quick", "-subjects=udp-kernel,host-gw", "-measures=tcp1r,udp64"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 1 || subjectsOf(o) != "udp-kernel, host-gw" || measuresOf(o) != "tcp1r, udp64" || len(o.trials) != 5 {
		t.Errorf("%d rounds of %d trials: %s: %s", o.rounds, len(o.trials), subjectsOf(o), measuresOf(o))
	}
}

func TestWrongOptions(t *testing.T) {
	for _, c := range []struct{ arg, says string }{
		{"-subjects=rw", `"rw" is not one of raw, `},
		{"-measures=tcp1,", `"" is not one of tcp1, `},
		{"-links=slow", `"slow" is not one of on, off`},
		{"-routes=0", `"0" is not a number from 1 to`},
		{"-routes=1,60001", `"60001" is not a number`},
		{"-rounds=0", "-rounds 0"},
		{"-plan=long", `"long" is not one of all, short`},
		{"-plan=short -routes=7", "-plan short sets the scenarios"},
		{"-plan=short -links=on", "-plan short sets the scenarios"},
		{"-plan=short -ends=host", "-plan short sets the scenarios"},
		{"-plan=short -rules=none", "-plan short sets the scenarios"},
		{"-plan=short -inside=6", "-plan short sets the scenarios"},
		{"-inside=4,5", `"5" is not one of 4, 6`},
		{"-ends=hosts", `"hosts" is not one of container, host, nested, local`},
		{"-rules=masq,all", `"all" is not one of masq, none, rules`},
		{"-plan=short -subjects=raw,host-gw -measures=udp1400,tcp-rr", ""},
		{"-plan=short -subjects=vxlan -measures=tcp1r", "-plan short has none of the chosen -subjects and -measures"},
		{"-seconds=0", "-seconds 0"},
		{"fast", `"fast" is not a flag`},
		{"-fast", "-fast"},
	} {
		_, err := parseOptions(strings.Fields(c.arg), nil)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want something with %s", c.arg, err, c.says)
		}
	}
}

// An earlier result is reported, evaluated and drawn without root and tools.
func TestFrom(t *testing.T) {
	chart := filepath.Join(t.TempDir(), "chart.svg")
	var out bytes.Buffer
	args := []string{"-from=../../docs/bench/result.json", "-chart=" + chart}
	if err := run(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"interleaved rounds", "udp-offload", "TARGETS", "udp-fast ÷ kernel-vxlan: container ends, link on, rules masq, 1 route"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not have %q", want)
		}
	}
	if svg, err := os.ReadFile(chart); err != nil || !bytes.Contains(svg, []byte(">udp-offload<")) {
		t.Errorf("chart: %v", err)
	}
	for _, bad := range []string{"options.go", "testdata-that-is-not", "/dev/null"} {
		if err := run(t.Context(), []string{"-from=" + bad}, &out, io.Discard); err == nil || !strings.Contains(err.Error(), "read result") {
			t.Errorf("-from=%s: %v", bad, err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.json")
	if err := os.WriteFile(empty, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"-from=" + empty}, &out, io.Discard); err == nil || !strings.Contains(err.Error(), "it has no figure") {
		t.Errorf("of no figures: %v", err)
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseOptions([]string{"-help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("%v, want flag.ErrHelp", err)
	}
	for _, want := range []string{"-rounds", "-quick", "kernel-vxlan", "udp-rr", "csum", "crr", "nested", "masq"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the help does not have %s", want)
		}
	}
}

// Figures have unique names.
func TestNamesAreUnique(t *testing.T) {
	var names []string
	for _, m := range measures() {
		for _, f := range m.figures {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	if n := len(names); len(slices.Compact(names)) != n {
		t.Errorf("a figure's name comes twice in %v", names)
	}
}
