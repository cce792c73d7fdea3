package rules

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// compiler made the object files that are committed; another release makes other
// code from the same source.
const compiler = "clang version 14."

// TestGenerated compiles the eBPF programs as go generate does, and compares.
func TestGenerated(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "clang", "--version").Output()
	if err != nil {
		t.Skipf("needs clang to compile the programs: %v", err)
	}
	directive := regexp.MustCompile(`(?m)^//go:generate (go tool bpf2go) (.*)$`)
	found := 0
	for _, f := range tree(t) {
		d := directive.FindStringSubmatch(string(f.source))
		if d == nil {
			continue
		}
		found++
		made := t.TempDir()
		compile := exec.CommandContext(t.Context(), "sh", "-c", d[1]+" -output-dir "+made+" "+d[2])
		compile.Dir = filepath.Join(root, f.dir())
		if out, err := compile.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", f.name, err, out)
		}
		files, err := os.ReadDir(made)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", f.name, len(files), err)
		}
		for _, file := range files {
			if strings.HasSuffix(file.Name(), ".o") && !bytes.Contains(version, []byte(compiler)) {
				t.Logf("compiled with %q, not %q: %s is not compared", version, compiler, file.Name())
				continue
			}
			got, err := os.ReadFile(filepath.Join(made, file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			committed, err := os.ReadFile(filepath.Join(compile.Dir, file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, committed) {
				t.Errorf("%s of %s is not what its source gives: run go generate", file.Name(), f.dir())
			}
		}
	}
	if found == 0 {
		t.Error("no directive of bpf2go")
	}
}
