package cli

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tool runs a program with text as its standard input, and returns its output.
func tool(t *testing.T, text, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%v; ./test installs it", err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// The manual has every command and every flag, and groff reports no fault.
func TestManual(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	code, source, errs := call(t, "man")
	if code != exitOK || errs != "" {
		t.Fatalf("code %d, %s", code, errs)
	}
	if faults := tool(t, source, "groff", "-ww", "-man", "-Tutf8", "-z"); faults != "" {
		t.Errorf("groff: %s", faults)
	}
	// groff overstrikes bold and underlined letters.
	page := regexp.MustCompile(".\b").ReplaceAllString(tool(t, source, "groff", "-P", "-c", "-man", "-Tascii"), "")
	for _, want := range []string{"2023-11-14", "-subnet-lease-ttl", "FLANNELD_ETCD_PREFIX", `{"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	p := &Program{DaemonFlags: daemonFlags}
	for _, c := range commands() {
		_, section, found := strings.Cut(page, "flannel "+strings.TrimSpace(c.name+" "+c.args)+"\n")
		if !found {
			t.Errorf("no section of %s", c.name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n   flannel ")
		fs, _ := c.flags(p)
		fs.VisitAll(func(f *flag.Flag) {
			if !strings.Contains(section, "-"+f.Name) {
				t.Errorf("no -%s in the section of %s:\n%s", f.Name, c.name, section)
			}
		})
	}
}

// bash and zsh accept the scripts.
func TestCompletion(t *testing.T) {
	_, script, _ := call(t, "completion", "bash")
	for line, want := range map[string]string{
		"flannel sta":         "status",
		"flannel config s":    "set",
		"flannel ping -ti":    "-timeout",
		"flannel -subnet-l":   "-subnet-lease-ttl",
		"flannel help doc":    "doctor docker-opts",
		"flannel completion ": "bash zsh",
	} {
		out := tool(t, script+"COMP_WORDS=("+line+")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"+
			`[ "`+line+`" = "${COMP_WORDS[*]}" ] || { COMP_WORDS+=(""); COMP_CWORD=$((COMP_CWORD + 1)); }`+
			"\n_flannel\necho \"${COMPREPLY[@]}\"\n", "bash")
		if strings.TrimSpace(out) != want {
			t.Errorf("bash completes %q to %q, want %q", line, out, want)
		}
	}
	_, script, _ = call(t, "completion", "zsh")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "_flannel"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	for how, setup := range map[string]string{
		"in fpath": "fpath=(" + dir + " $fpath)\nautoload -U compinit\ncompinit -u -D\n",
		"sourced":  "autoload -U compinit\ncompinit -u -D\nsource " + dir + "/_flannel\n",
	} {
		if out := tool(t, setup+"print -r -- $_comps[flannel]\n", "zsh", "-f"); strings.TrimSpace(out) != "_flannel" {
			t.Errorf("%s: zsh completes flannel by %q", how, out)
		}
	}
	tool(t, script, "zsh", "-n")
	if code, _, errs := call(t, "completion", "fish"); code != exitFailed || !strings.Contains(errs, "bash|zsh") {
		t.Errorf("fish: code %d, %s", code, errs)
	}
}

// daemonFlags returns flags of a daemon, some of which commands share.
func daemonFlags() *flag.FlagSet {
	fs := flag.NewFlagSet("flannel", flag.ContinueOnError)
	newStoreFlags(fs)
	fs.Duration("subnet-lease-ttl", 0, "for how long")
	return fs
}
