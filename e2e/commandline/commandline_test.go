package commandline

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/coreos/flannel/pkg/envflag"
)

// The scripts in testdata run the built program.
func TestScripts(t *testing.T) {
	program := filepath.Join(t.TempDir(), "flannel")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "github.com/coreos/flannel")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build flannel: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			for _, v := range os.Environ() {
				if strings.HasPrefix(v, envflag.Prefix) {
					name, _, _ := strings.Cut(v, "=")
					env.Setenv(name, "")
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"flannel": func(ts *testscript.TestScript, neg bool, args []string) {
				if err := ts.Exec(program, args...); (err != nil) != neg {
					ts.Fatalf("flannel %q: %v", args, err)
				}
			},
		},
	})
}
