package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// module is the path of the program's package.
const module = "github.com/coreos/flannel"

// patience bounds every wait for a condition; no test waits for a time to pass.
// It is long, because a machine may be slow.
const patience = netnstest.Patience

// programs are the binaries that the tests run, built once; release by the first test
// that needs it.
var programs struct{ flannel, classicpeer, demo, release string }

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "flannel-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs.release = filepath.Join(dir, "release")
	for path, program := range map[string]*string{
		module:                      &programs.flannel,
		module + "/e2e/classicpeer": &programs.classicpeer,
		module + "/e2e/demo":        &programs.demo,
	} {
		*program = filepath.Join(dir, filepath.Base(path))
		if os.Geteuid() != 0 {
			continue // every test is skipped
		}
		if err := build(*program, path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

func build(output, path string) error {
	args := []string{"build", "-buildvcs=false", "-o", output}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(context.Background(), "go", append(args, path)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", path, err, out)
	}
	return nil
}

// eventually polls until check has nothing to complain of.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	netnstest.Eventually(t, what, check)
}
