package etcd_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The package works without an etcd client, so that it serves both APIs.
func TestImportsNoClient(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	for _, path := range strings.Fields(string(out)) {
		if strings.HasPrefix(path, "go.etcd.io/") || strings.HasPrefix(path, "github.com/coreos/go-etcd/") {
			t.Errorf("imports %s", path)
		}
	}
}
