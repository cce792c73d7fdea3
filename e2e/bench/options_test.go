package main

import (
	"bytes"
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coreos/flannel/e2e/bench/result"
)

func TestOptions(t *testing.T) {
	o, err := parseOptions(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds < 5 || len(o.subjects) < 5 || len(o.measures) != 8 || o.congestion == "" || len(o.wanted) != 0 {
		t.Errorf("defaults are %+v", o)
	}
	want := []result.Scenario{{Link: "on", Routes: 1}, {Link: "off", Routes: 1}, {Link: "on", Routes: 1000}, {Link: "on", Routes: 10000}}
	if diff := cmp.Diff(want, o.scenarios); diff != "" {
		t.Error(diff)
	}

	o, err = parseOptions([]string{"-quick", "-rounds=2", "-subjects=udp-plain, raw", "-measures=tcp4", "-links=off", "-routes=7, 9"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 2 || o.seconds != 1 || listNames(o.subjects, subjectName) != "raw, udp-plain" || listNames(o.measures, measureName) != "tcp4" {
		t.Errorf("what is given gives way: %+v", o)
	}
	if diff := cmp.Diff([]string{"raw", "udp-plain"}, o.wanted); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]result.Scenario{{Link: "off", Routes: 7}, {Link: "off", Routes: 9}}, o.scenarios); diff != "" {
		t.Error(diff)
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
		{"-seconds=0", "-seconds 0"},
		{"fast", `"fast" is not a flag`},
		{"-fast", "-fast"},
	} {
		if _, err := parseOptions([]string{c.arg}, nil); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want something with %s", c.arg, err, c.says)
		}
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseOptions([]string{"-help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("%v, want flag.ErrHelp", err)
	}
	for _, want := range []string{"-rounds", "-quick", "kernel-vxlan", "udp-rr", "csum"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the help does not tell of %s", want)
		}
	}
}

// A figure's name finds its cell, so there must be but one of each.
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
