package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const reason = "programs at flannel0 and eth0, attached by tcx; beneath it: on: TSO, USO; off: USO write (kernel: invalid argument)"

func TestOutcome(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"status.json": `{"backend": {"datapath": "kernel", "datapath_reason": "` + reason + `"}}`,
		"e2e.txt": "=== RUN   TestEachBackend\n--- FAIL: TestEachBackend (3.1s)\n    --- PASS: TestEachBackend/udp (1.0s)\n" +
			"    --- FAIL: TestEachBackend/wireguard_kernel (2.0s)\nFAIL\nEXIT 1\n",
		"pkg-tun.txt":   "--- PASS: TestOpen (0.0s)\n    a_test.go:7: needs root\n--- SKIP: TestOwner (0.0s)\n    a_test.go:9: this kernel has no USO\n--- SKIP: TestUSO (0.0s)\nPASS\nEXIT 0\n",
		"pkg-probe.txt": "panic: runtime error\nEXIT 2\n",
		"pkg-rtnl.txt":  "--- PASS: TestLinks (0.0s)\n", // the guest has ended
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o, err := readOutcome(dir)
	if err != nil {
		t.Fatal(err)
	}
	if o.path != "kernel" || o.passed != 3 || o.lacking != 1 || o.backends["wireguard kernel"] != "**wrong**" || o.backends["udp"] != "right" {
		t.Errorf("the outcome is %+v", o)
	}
	want := "failed or skipped: e2e:TestEachBackend e2e:TestEachBackend/wireguard_kernel pkg-probe pkg-rtnl pkg-tun:TestOwner"
	if err := o.err(); err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

// A row replaces that of its line, and the rows are in the order of the lines.
func TestEnter(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("# Kernels\n\n"+head+"\nMore.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := outcome{path: "kernel", reason: reason, passed: 7, backends: map[string]string{"udp": "right"}}
	for _, line := range []string{"6.12", "6.1", "7.3", "6.1-cloud", "6.12"} {
		if err := enter(page, kernel{line: line, release: line + ".7-amd64"}, o); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), head)
	var lines []string
	for row := range strings.Lines(table) {
		if strings.HasPrefix(row, "|") {
			lines = append(lines, lineOf(row))
		}
	}
	if got := strings.Join(lines, " "); got != "6.1 6.1-cloud 6.12 7.3" {
		t.Errorf("the rows are of %s:\n%s", got, table)
	}
	if want := "| 6.1 | 6.1.7-amd64 | `kernel` | tcx | USO write | right | – | – | – | – | 7 | – |\n"; !strings.Contains(table, want) {
		t.Errorf("the table lacks\n%s\nand is\n%s", want, table)
	}
	if !strings.HasSuffix(string(text), "\n\nMore.\n") {
		t.Errorf("the page ends with\n%s", text)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"linux-image-6.1.0-9-amd64", "linux-image-6.1.0-57-amd64", true},
		{"linux-image-6.1.0-57-amd64", "linux-image-6.1.0-9-amd64", false},
		{"6.1", "6.12", true},
		{"6.12", "6.12.1", true},
		{"6.1", "6.1", false},
	} {
		if got := older(c.a, c.b); got != c.want {
			t.Errorf("older(%q, %q) = %v", c.a, c.b, got)
		}
	}
}
