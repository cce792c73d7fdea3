// Package docs holds the documentation to what the program does.
package docs

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages are all that a person reads.
func pages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(pages, "../README.md", "../Godeps/README.md")
}

var (
	link    = regexp.MustCompile(`\]\(([^)]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	// dropped is what GitHub leaves out of a heading to make its anchor.
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func anchors(text string) []string {
	var found []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		anchor := dropped.ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(anchor, " ", "-"))
	}
	return found
}

func TestLinks(t *testing.T) {
	links := 0
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			file, anchor, hasAnchor := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link %s: %v", page, m[1], err)
			} else if hasAnchor && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: link %s: no such heading", page, m[1])
			}
		}
	}
	if links == 0 {
		t.Error("no links found")
	}
}

var (
	helpFlag    = regexp.MustCompile(`(?m)^  -([a-z][a-z0-9_-]*)`)
	helpDefault = regexp.MustCompile(`\(default (?:"([^"]*)"|([^)"]*))\)`)
	tableRow    = regexp.MustCompile("(?m)^\\| (`-[a-z].*?) \\|(.*?)\\| .* \\|$")
	rowFlag     = regexp.MustCompile("`-([a-z][a-z0-9-]*)`")
)

// logFlags are the log package's, of which the README names but two.
var logFlags = []string{"v", "vmodule", "log_backtrace_at", "logtostderr", "alsologtostderr", "stderrthreshold", "log_dir", "log_link", "logbuflevel", "version", "help"}

// TestFlags holds README's table against what -help prints, in both directions,
// and the defaults too.
func TestFlags(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "flannel")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	help, err := exec.CommandContext(t.Context(), binary, "-help").Output()
	if err != nil {
		t.Fatal(err)
	}
	defaults := make(map[string]string) // by flag, as -help has them
	starts := helpFlag.FindAllSubmatchIndex(help, -1)
	for i, at := range starts {
		end := len(help)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		name, value := string(help[at[2]:at[3]]), ""
		if d := helpDefault.FindSubmatch(help[at[0]:end]); d != nil {
			value = string(d[1]) + string(d[2])
		}
		defaults[name] = value
	}
	if len(defaults) == 0 {
		t.Fatalf("-help names no flags:\n%s", help)
	}

	listed := make(map[string]bool)
	for _, row := range tableRow.FindAllStringSubmatch(read(t, "../README.md"), -1) {
		for _, m := range rowFlag.FindAllStringSubmatch(row[1], -1) {
			name := m[1]
			listed[name] = true
			value, known := defaults[name]
			if !known && !slices.Contains(logFlags, name) {
				t.Errorf("README.md lists -%s, which -help does not", name)
			}
			if value != "" && !sameDefault(row[2], value) {
				t.Errorf("README.md: default of -%s is %q, -help says %q", name, row[2], value)
			}
		}
	}
	for name := range defaults {
		if !listed[name] && !slices.Contains(logFlags, name) {
			t.Errorf("README.md does not list -%s", name)
		}
	}
}

// sameDefault compares loosely: a cell may hold the defaults of several flags,
// and Go prints 24h as 24h0m0s.
func sameDefault(cell, value string) bool {
	return strings.Contains(cell, strings.TrimSuffix(value, "0m0s")) || strings.Contains(cell, value)
}

func TestPictureIsWellFormed(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(read(t, "packet.svg")))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
