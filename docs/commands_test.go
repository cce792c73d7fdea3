package docs

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestCommands compares the table of commands with "flannel help", in both
// directions.
func TestCommands(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "flannel")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	help, err := exec.CommandContext(t.Context(), binary, "help").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := func(pattern, text string) (names []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		return names
	}
	listed := found(`(?m)^  ([a-z-]+)  `, string(help))
	documented := found("(?m)^\\| `flannel ([a-z-]+)` \\|", read(t, "commands.md"))
	if len(listed) == 0 || !slices.Equal(listed, documented) {
		t.Errorf("flannel help lists  %q\ncommands.md has     %q", listed, documented)
	}
}
