package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// verdict is the end of a test.
type verdict string

const (
	passed     verdict = "PASS"
	failed     verdict = "FAIL"
	skipped    verdict = "SKIP" // although the guest has what the test needs
	lacking    verdict = "lacks"
	unfinished verdict = "unfinished"
)

// outcome is what the runs of a guest found.
type outcome struct {
	path, reason string             // the data path of udp that auto chooses, and why
	verdicts     map[string]verdict // by "package:Test"; of the last run of each
	lacks        map[string]bool    // features that tests missed
}

// ends returns the names of the tests that ended so, in order.
func (o outcome) ends(all ...verdict) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(o.verdicts)) {
		if slices.Contains(all, o.verdicts[name]) {
			names = append(names, name)
		}
	}
	return names
}

// bad returns the names of the tests that make the run a failure.
func (o outcome) bad() []string { return o.ends(failed, skipped, unfinished) }

// err names the tests that failed or were skipped.
func (o outcome) err() error {
	if bad := o.bad(); len(bad) > 0 {
		return fmt.Errorf("failed or skipped: %s", strings.Join(bad, " "))
	}
	return nil
}

// unrun returns the packages of which no test has run.
func (o outcome) unrun() []string {
	ran := make(map[string]bool)
	for name := range o.verdicts {
		pkg, _, _ := strings.Cut(name, ":")
		ran[pkg] = true
	}
	return slices.DeleteFunc(slices.Clone(packages), func(pkg string) bool { return ran[binary(pkg)] })
}

// readOutcome reads the files that guest/tests.sh left.
func readOutcome(dir string, k kernel) (outcome, error) {
	o := outcome{verdicts: make(map[string]verdict), lacks: make(map[string]bool)}
	var status struct {
		Backend struct {
			DataPath string `json:"datapath"`
			Reason   string `json:"datapath_reason"`
		} `json:"backend"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "status.json"))
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	if err != nil {
		return o, fmt.Errorf("read status of the guest's daemon: %w", err)
	}
	o.path, o.reason = status.Backend.DataPath, status.Backend.Reason
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return o, err
	}
	if len(files) == 0 {
		return o, errors.New("the guest left no results of tests")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return o, err
		}
		o.add(strings.TrimSuffix(filepath.Base(file), ".txt"), string(text), k)
	}
	return o, nil
}

// keep makes the results of a run those of the line. With add, the texts of earlier runs
// with the same kernel stay before the new ones. A run without any result changes
// nothing then.
func keep(fresh, results string, add bool) error {
	if _, err := os.Stat(filepath.Join(fresh, "release")); add && errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(fresh) // the guest did not get so far
	}
	if add && sameRelease(fresh, results) {
		earlier, err := filepath.Glob(filepath.Join(results, "*.txt"))
		if err != nil {
			return err
		}
		for _, file := range earlier {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			to := filepath.Join(fresh, filepath.Base(file))
			more, err := os.ReadFile(to)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := os.WriteFile(to, append(text, more...), 0o644); err != nil {
				return err
			}
		}
	}
	if err := os.RemoveAll(results); err != nil {
		return err
	}
	return os.Rename(fresh, results)
}

// sameRelease compares the kernels of two folders of results.
func sameRelease(a, b string) bool {
	ofA, errA := os.ReadFile(filepath.Join(a, "release"))
	ofB, errB := os.ReadFile(filepath.Join(b, "release"))
	return errA == nil && errB == nil && string(ofA) == string(ofB)
}

// eachBackend is the end-to-end test whose subtests are the backends.
const eachBackend = "e2e:TestEachBackend/"

// backend returns the result of a backend's end-to-end test.
func (o outcome) backend(name string) string {
	switch o.verdicts[eachBackend+strings.ReplaceAll(name, " ", "_")] {
	case passed:
		return "right"
	case failed, unfinished:
		return "**wrong**"
	case skipped, lacking:
		return "skipped"
	}
	return absent
}
