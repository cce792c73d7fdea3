package fastpath

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// compiler made the object file that is committed; another release makes other
// code from the same source.
const compiler = "clang version 14."

// TestGenerated compiles the programs as go generate does, and compares.
func TestGenerated(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "clang", "--version").Output()
	if err != nil {
		t.Skipf("needs clang to compile the programs: %v", err)
	}
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	directive := regexp.MustCompile(`(?m)^//go:generate (.*) -go-package (.*)$`).FindSubmatch(source)
	if directive == nil {
		t.Fatal("no go:generate directive in doc.go")
	}
	dir := t.TempDir()
	command := string(directive[1]) + " -output-dir " + dir + " -go-package " + string(directive[2])
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	for _, name := range []string{"fastpath_bpfel.go", "fastpath_bpfel.o"} {
		if strings.HasSuffix(name, ".o") && !bytes.Contains(version, []byte(compiler)) {
			t.Logf("compiled with %q, not %q: %s is not compared", version, compiler, name)
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, committed) {
			t.Errorf("%s is not what fastpath.c gives: run go generate", name)
		}
	}
}
