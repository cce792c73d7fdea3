package rules

import (
	"os/exec"
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

// What is made for tests stays out of the program.
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
		}
	}
}
