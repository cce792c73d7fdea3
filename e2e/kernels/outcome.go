package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// outcome is what a guest found.
type outcome struct {
	path, reason string // the data path of udp that auto chooses, and why
	passed       int
	failed       []string // names of tests, and of packages that ended otherwise
	skipped      []string // although the guest has all that the tests need
	lacking      int      // tests that were skipped for what the kernel lacks
	backends     map[string]string
}

// err names the tests that failed or were skipped.
func (o outcome) err() error {
	if bad := slices.Concat(o.failed, o.skipped); len(bad) > 0 {
		return fmt.Errorf("failed or skipped: %s", strings.Join(bad, " "))
	}
	return nil
}

var (
	verdict = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+)`)
	ending  = regexp.MustCompile(`^EXIT (\d+)$`)
)

// lacks begins the reason of a test that is skipped for what the kernel lacks.
const lacks = ": this kernel "

// eachBackend is the end-to-end test whose subtests are the backends.
const eachBackend = "TestEachBackend/"

// readOutcome reads the files that guest/tests.sh left.
func readOutcome(dir string) (outcome, error) {
	o := outcome{backends: make(map[string]string)}
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
		o.add(strings.TrimSuffix(filepath.Base(file), ".txt"), string(text))
	}
	return o, nil
}

// add counts the tests in the output of a package's test binary.
func (o *outcome) add(name, text string) {
	failed, exit, before := false, "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		reason := before
		before = line
		if m := ending.FindStringSubmatch(line); m != nil {
			exit = m[1]
		}
		m := verdict.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		switch m[1] {
		case "PASS":
			o.passed++
		case "FAIL":
			failed = true
			o.failed = append(o.failed, name+":"+m[2])
		case "SKIP":
			if strings.Contains(reason, lacks) {
				o.lacking++
				break
			}
			o.skipped = append(o.skipped, name+":"+m[2])
		}
		if backend, is := strings.CutPrefix(m[2], eachBackend); is && !strings.Contains(backend, "/") {
			o.backends[strings.ReplaceAll(backend, "_", " ")] = map[string]string{"PASS": "right", "FAIL": "**wrong**", "SKIP": "skipped"}[m[1]]
		}
	}
	if exit != "0" && !failed {
		o.failed = append(o.failed, name)
	}
}
