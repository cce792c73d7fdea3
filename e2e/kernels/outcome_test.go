package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const reason = "programs at flannel0 and eth0, attached by tcx; beneath it: on: TSO, USO; off: USO write (kernel: invalid argument)"

// write writes files into a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOutcome(t *testing.T) {
	dir := write(t, map[string]string{
		"status.json": `{"backend": {"datapath": "kernel", "datapath_reason": "` + reason + `"}}`,
		"e2e.txt": "=== RUN   TestEachBackend\n--- FAIL: TestEachBackend (3.1s)\n    --- PASS: TestEachBackend/udp (1.0s)\n" +
			"    --- FAIL: TestEachBackend/wireguard_kernel (2.0s)\nFAIL\nEXIT 1\n",
		"pkg-tun.txt": "=== RUN   TestOpen\n--- PASS: TestOpen (0.0s)\n=== RUN   TestOwner\n    a_test.go:7: needs root\n--- SKIP: TestOwner (0.0s)\n" +
			"=== RUN   TestUSO\n    a_test.go:9: this kernel lacks USO (Linux 6.2): invalid argument\n--- SKIP: TestUSO (0.0s)\n" +
			"=== RUN   TestVRF\n    a_test.go:9: this kernel lacks VRFs (CONFIG_NET_VRF): unknown\n--- PASS: TestVRF (0.0s)\nPASS\nEXIT 0\n",
		"pkg-probe.txt": "panic: runtime error\nEXIT 2\n",
		"pkg-rtnl.txt":  "=== RUN   TestLinks\n--- PASS: TestLinks (0.0s)\n=== RUN   TestRoutes\n", // the guest has ended
	})
	o, err := readOutcome(dir, kernel{line: "6.1-cloud", config: "CONFIG_NET_VRF=m\n"})
	if err != nil {
		t.Fatal(err)
	}
	if o.path != "kernel" || o.backend("wireguard kernel") != "**wrong**" || o.backend("udp") != "right" || o.backend("vxlan") != absent {
		t.Errorf("the outcome is %+v", o)
	}
	for v, want := range map[verdict]string{
		passed:     "e2e:TestEachBackend/udp pkg-rtnl:TestLinks pkg-tun:TestOpen",
		failed:     "e2e:TestEachBackend e2e:TestEachBackend/wireguard_kernel pkg-probe pkg-tun:TestVRF",
		skipped:    "pkg-tun:TestOwner",
		lacking:    "pkg-tun:TestUSO",
		unfinished: "pkg-rtnl:TestRoutes",
	} {
		if got := strings.Join(o.ends(v), " "); got != want {
			t.Errorf("%s: %s, want %s", v, got, want)
		}
	}
	want := "failed or skipped: e2e:TestEachBackend e2e:TestEachBackend/wireguard_kernel pkg-probe pkg-rtnl:TestRoutes pkg-tun:TestOwner pkg-tun:TestVRF"
	if err := o.err(); err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
	if !o.lacks["VRFs"] || !o.lacks["USO"] {
		t.Errorf("the tests missed %v", o.lacks)
	}
}

// Of each test the last run counts. Results of another kernel do not stay.
func TestKeep(t *testing.T) {
	const status = `{"backend": {"datapath": "kernel"}}`
	results := filepath.Join(t.TempDir(), "out")
	for _, c := range []struct {
		release, text string
		add           bool
		passed, bad   string
	}{
		{"a", "=== RUN   TestA\n--- PASS: TestA (0s)\n=== RUN   TestB\n=== RUN   TestB/c\nEXIT 2\n", true, "p:TestA", "p:TestB p:TestB/c"},
		{"a", "=== RUN   TestB\n=== RUN   TestB/c\n--- PASS: TestB (0s)\n    --- PASS: TestB/c\nPASS\nEXIT 0\n", true, "p:TestA p:TestB p:TestB/c", ""},
		{"a", "panic\nEXIT 2\n", true, "p:TestA p:TestB p:TestB/c", "p"},
		{"a", "=== RUN   TestD\n--- PASS: TestD\nPASS\nEXIT 0\n", true, "p:TestA p:TestB p:TestB/c p:TestD", ""},
		{"b", "=== RUN   TestD\n--- FAIL: TestD\nFAIL\nEXIT 1\n", true, "", "p:TestD"},
		{"", "", true, "", "p:TestD"},
		{"b", "=== RUN   TestE\n--- PASS: TestE\nPASS\nEXIT 0\n", false, "p:TestE", ""},
	} {
		fresh := write(t, map[string]string{"release": c.release, "status.json": status, "p.txt": c.text})
		if c.release == "" {
			if err := os.Remove(filepath.Join(fresh, "release")); err != nil {
				t.Fatal(err)
			}
		}
		if err := keep(fresh, results, c.add); err != nil {
			t.Fatal(err)
		}
		o, err := readOutcome(results, kernel{})
		if err != nil {
			t.Fatal(err)
		}
		if got, bad := strings.Join(o.ends(passed), " "), strings.Join(o.bad(), " "); got != c.passed || bad != c.bad {
			t.Errorf("after %q passed are %q and bad %q, want %q and %q", c.text, got, bad, c.passed, c.bad)
		}
	}
}

func TestHas(t *testing.T) {
	k := kernel{line: "6.12-cloud", config: "CONFIG_NET_VRF=m\n# CONFIG_TUN is not set\nCONFIG_BPF=y\n"}
	for given, want := range map[string]bool{
		"CONFIG_NET_VRF": true, "CONFIG_BPF": true, "CONFIG_TUN": false, "CONFIG_NET": false,
		"Linux 6.1": true, "Linux 6.12": true, "Linux 6.16": false, "Linux 7.2": false,
	} {
		if got := k.has(given); got != want {
			t.Errorf("has(%q) = %v", given, got)
		}
	}
}

// A row replaces that of its line, and the rows are in the order of the lines.
func TestEnter(t *testing.T) {
	p := page{file: filepath.Join(t.TempDir(), "page.md")}
	if err := os.WriteFile(p.file, []byte("# Kernels\n\n"+head+"\nMore.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := outcome{path: "kernel", reason: reason, verdicts: map[string]verdict{eachBackend + "udp": passed, "p:A": passed, "p:B": lacking}, lacks: map[string]bool{"tcx": true}}
	for _, pkg := range packages[2:] {
		o.verdicts[binary(pkg)+":TestIt"] = passed
	}
	for _, line := range []string{"6.12", "6.1", "7.3", "6.1-cloud", "6.12"} {
		if err := p.enter(kernel{line: line, release: line + ".7-amd64"}, o); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(p.file)
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
	want := fmt.Sprintf("| 6.1 | 6.1.7-amd64 | `kernel` | tcx | USO write | right | – | – | – | – | %d, and 1 not possible without tcx | – | %s |\n",
		len(packages), strings.Join(packages[:2], " "))
	if !strings.Contains(table, want) {
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
