package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
	"github.com/coreos/flannel/pkg/netnstest"
)

// program is the flannel under test, built once.
var program string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if code, run := load.Main(); run {
		return code
	}
	if os.Geteuid() != 0 {
		return m.Run() // tests that need the program are skipped
	}
	dir, err := os.MkdirTemp("", "bench-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "flannel")
	if out, err := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", program, "github.com/coreos/flannel").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build flannel: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func require(t *testing.T) {
	t.Helper()
	netnstest.Require(t)
	for tool, pkg := range map[string]string{"iperf3": "iperf3", "ethtool": "ethtool", "ping": "iputils-ping", "iptables-restore": "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not in PATH; install the Debian package %s", tool, pkg)
		}
	}
}

// measured runs the program and returns its result, table and chart.
func measured(t *testing.T, args ...string) (r *result.Result, table, svg string) {
	t.Helper()
	dir := t.TempDir()
	file, chart := filepath.Join(dir, "result.json"), filepath.Join(dir, "chart.svg")
	var out, log bytes.Buffer
	args = append([]string{"-flannel=" + program, "-quick", "-json=" + file, "-chart=" + chart}, args...)
	if err := run(t.Context(), args, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r = new(result.Result)
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	drawn, err := os.ReadFile(chart)
	if err != nil {
		t.Fatal(err)
	}
	return r, out.String(), string(drawn)
}

// complete checks that every cell has a figure. A test on a busy machine cannot
// check its size.
func complete(t *testing.T, r *result.Result, table string) {
	t.Helper()
	for _, at := range r.Scenarios {
		for _, s := range r.Subjects {
			for _, f := range r.Figures {
				c := r.Cell(at, s.Name, f.Name)
				if c == nil || len(c.Samples) != r.Rounds || c.Median < 0 || c.Median == 0 && f.Better != result.Share && f.Better != result.Count {
					t.Errorf("%v, %s, %s: %+v", at, s.Name, f.Name, c)
				}
			}
			if !strings.Contains(table, s.Name) {
				t.Errorf("the table has no %s", s.Name)
			}
		}
	}
}

func TestQuick(t *testing.T) {
	require(t)
	r, table, svg := measured(t)
	complete(t, r, table)
	for _, name := range []string{"raw", rig.Reference, "udp-plain"} {
		if len(r.Cells) == 0 || r.Cell(r.Scenarios[0], name, "tcp1") == nil {
			t.Errorf("%s is not measured", name)
		}
		if name != rig.Reference && !strings.Contains(svg, ">"+name+"<") {
			t.Errorf("the chart has no %s", name)
		}
	}
	if got := len(r.Subjects) + len(r.LeftOut); got != len(rig.Subjects()) {
		t.Errorf("%d subjects are measured or left out, of %d", got, len(rig.Subjects()))
	}
	for name, reason := range r.LeftOut {
		if !strings.Contains(table, name) || !strings.Contains(table, reason) {
			t.Errorf("the table does not say that %s is left out: %s", name, reason)
		}
	}
}

// TestQuick covers the other measures.
func TestAllMeasuresLinksAndRounds(t *testing.T) {
	require(t)
	r, table, _ := measured(t, "-subjects=raw,kernel-vxlan", "-measures=tcp1r,tcp4,tcp4r,udp64,udp1400,tcp-rr")
	complete(t, r, table)
	r, table, _ = measured(t, "-subjects=raw,kernel-vxlan", "-measures=tcp1", "-links=on,off,csum", "-routes=1,100", "-ends=container,host,nested,local", "-rules=masq,none,rules", "-rounds=2")
	complete(t, r, table)
	if len(r.Scenarios) != 9 || r.Rounds != 2 || len(r.Foreign) != 2*9*2 {
		t.Errorf("%d scenarios, %d rounds, %d trials", len(r.Scenarios), r.Rounds, len(r.Foreign))
	}
}

// With -inside 4,6 the load runs over both families, and the table compares them.
func TestBothFamilies(t *testing.T) {
	require(t)
	r, table, _ := measured(t, "-subjects=kernel-vxlan,udp-plain", "-measures=tcp1,udp-rr", "-inside=4,6")
	complete(t, r, table)
	if len(r.Scenarios) != 2 || strings.Count(table, "÷ INSIDE 4") != 1 {
		t.Errorf("%d scenarios, printed %q", len(r.Scenarios), table)
	}
	for _, name := range []string{rig.Reference, "udp-plain"} {
		if ratio, ok := r.RatioInside(r.Cell(insideV6(), name, "tcp1")); !ok || ratio <= 0 {
			t.Errorf("%s: ratio of IPv6 inside to IPv4 inside is %v, %v", name, ratio, ok)
		}
	}
}

// An unsupported subject is left out, with its reason. It is an error if -subjects
// names it.
func TestRefused(t *testing.T) {
	require(t)
	refuser := filepath.Join(t.TempDir(), "flannel")
	script := fmt.Sprintf("#!/bin/sh\ncase $* in *'\"udp\"'*) echo 'E1124 06:00:00.000000 1 main.go:1] not today' >&2; exit 1;; esac\nexec %s \"$@\"\n", program)
	if err := os.WriteFile(refuser, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-flannel=" + refuser, "-quick", "-measures=tcp1"}
	var out, log bytes.Buffer
	if err := run(t.Context(), args, &out, &log); err != nil || !strings.Contains(out.String(), "left out: not today\n") {
		t.Errorf("%v, printed %q", err, out.String())
	}
	out.Reset()
	err := run(t.Context(), append(args, "-subjects=raw,udp-plain"), &out, &log)
	if err == nil || !strings.Contains(err.Error(), "not today") || out.Len() > 0 {
		t.Errorf("%v, printed %q; want an error and no table", err, out.String())
	}
}

// A failed measurement is repeated and counted. One that keeps failing ends the run.
func TestRepeats(t *testing.T) {
	require(t)
	iperf3, err := exec.LookPath("iperf3")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *-c*) rm %[1]s/fail 2>/dev/null && exit 1;; esac\nexec %[2]s \"$@\"\n", dir, iperf3)
	if err := os.WriteFile(filepath.Join(dir, "iperf3"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fail"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	r, table, _ := measured(t, "-subjects=raw,kernel-vxlan", "-measures=tcp1")
	complete(t, r, table)
	if r.Repeated != 1 || !strings.Contains(table, "repeated: 1\n") {
		t.Errorf("%d repeated, printed %q", r.Repeated, table)
	}
	if err := os.WriteFile(filepath.Join(dir, "iperf3"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	if err := run(t.Context(), []string{"-flannel=" + program, "-quick", "-subjects=raw", "-measures=tcp1"}, &out, &log); err == nil || out.Len() > 0 {
		t.Errorf("%v, printed %q; want an error and no table", err, out.String())
	}
}

// Ctrl-C ends the run at any time, keeps the complete rounds, and leaves nothing
// behind.
func TestInterrupted(t *testing.T) {
	require(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	path := filepath.Join(t.TempDir(), "result.json")
	for _, c := range []struct {
		at   string // what the log says when it happens
		keep bool
	}{{"round 1 of 9", false}, {"round 2 of 9: container ends, link on, rules masq, 1 route: udp-plain", true}} {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		log := &trigger{on: c.at, f: cancel}
		err := run(ctx, []string{"-flannel=" + program, "-quick", "-rounds=9", "-subjects=raw,udp-plain", "-measures=tcp1", "-json=" + path}, &out, log)
		cancel()
		if err == nil || err.Error() != "interrupted" {
			t.Errorf("%s: %v, want interrupted", c.at, err)
		}
		if got := strings.Contains(out.String(), "1 interleaved rounds"); got != c.keep {
			t.Errorf("%s: printed %q", c.at, out.String())
		}
		if _, err := os.Stat(path); (err == nil) != c.keep || err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: result: %v", c.at, err)
		}
		left, err := filepath.Glob(fmt.Sprintf("/run/netns/netnstest-%d-*", os.Getpid()))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: namespaces left: %v, %v", c.at, left, err)
		}
		files, err := os.ReadDir(tmp)
		if err != nil || len(files) > 0 {
			t.Errorf("%s: files left: %v, %v", c.at, files, err)
		}
		if out, err := exec.CommandContext(t.Context(), "pgrep", "-f", program).Output(); err == nil {
			t.Errorf("%s: daemons left: %s", c.at, out)
		}
	}
}

// trigger is a log that calls f at a text.
type trigger struct {
	on string
	f  func()
	mu sync.Mutex
}

func (w *trigger) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes.Contains(p, []byte(w.on)) {
		w.f()
	}
	return len(p), nil
}
