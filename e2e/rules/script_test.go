package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each script prints its usage for -help and for a wrong argument, and does
// nothing else then.
func TestScriptsPrintUsage(t *testing.T) {
	for script, mistake := range map[string]string{"build": "nonsense", "test": "nonsense", "demo": ""} {
		text, err := os.ReadFile(filepath.Join(root, script))
		if err != nil {
			t.Fatal(err)
		}
		_, head, _ := strings.Cut(string(text), "\n") // behind #!
		head, _, _ = strings.Cut(head, "\nset -eu")
		want := ""
		for line := range strings.Lines(head + "\n") {
			want += strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ")
		}
		for _, flag := range []string{"-h", "-help", "--help"} {
			out, err := exec.CommandContext(t.Context(), filepath.Join(root, script), flag).Output()
			if err != nil || !strings.HasPrefix(want, string(out)) || !strings.Contains(string(out), "./"+script+" ") {
				t.Errorf("./%s %s: %v\n%s", script, flag, err, out)
			}
		}
		if mistake == "" {
			continue // its program judges the arguments
		}
		if out, err := exec.CommandContext(t.Context(), filepath.Join(root, script), mistake).CombinedOutput(); err == nil || !strings.HasPrefix(want, string(out)) || len(out) == 0 {
			t.Errorf("./%s %s: %v\n%s", script, mistake, err, out)
		}
	}
}
