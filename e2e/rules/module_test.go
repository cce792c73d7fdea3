package rules

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestGoModIsTidy(t *testing.T) {
	diff := exec.CommandContext(t.Context(), "go", "mod", "tidy", "-diff")
	diff.Dir = root
	if out, err := diff.CombinedOutput(); err != nil {
		t.Errorf("go mod tidy -diff: %v\n%s", err, out)
	}
}

// Packages for tests are not linked into the program.
func TestProgramLinksNoTestPackage(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", ".")
	list.Dir = root
	out, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("go list -deps .: %v\n%s", err, out)
	}
	linked := strings.Fields(string(out))
	for _, path := range linked {
		switch {
		case path == "testing", path == "net/http/httptest",
			within(module+"/e2e", path), within(module+"/pkg/netnstest", path), within(module+"/subnet/subnettest", path):
			t.Errorf("the program links %s", path)
		case within("k8s.io/client-go/kubernetes", path), within("k8s.io/client-go/informers", path), within("k8s.io/client-go/metadata", path), within("k8s.io/api", path):
			t.Errorf("the program links %s: the types of all objects weigh 25 MB, and subnet/kube decodes the one that it needs", path)
		}
	}
}

// The program of the build script is one file without a dynamic linker.
func TestProgramIsStaticAndSmall(t *testing.T) {
	const limit = 45_000_000
	script, err := os.ReadFile(filepath.Join(root, "build"))
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`(?m)^ldflags='(.*)'$`).FindSubmatch(script)
	if flags == nil {
		t.Fatal("the build script sets no ldflags")
	}
	name := filepath.Join(t.TempDir(), "flannel")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+string(flags[1]), "-o", name, ".")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > limit {
		t.Errorf("%d bytes, more than %d", info.Size(), limit)
	}
	binary, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it needs a dynamic linker")
		}
	}
}
