package install

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/coreos/flannel/cni/bundled"
	"github.com/coreos/flannel/cni/bundled/link"
)

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// The plugins that a folder has stay. Those that it lacks come, and a second run
// changes nothing.
func TestPlugins(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cni", "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "bridge"), "the distribution's", 0o755)
	write(t, filepath.Join(dir, "flannel"), "another release's", 0o755)
	if err := os.Symlink("nowhere", filepath.Join(dir, "portmap")); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	install := func(want ...string) {
		t.Helper()
		if done, err := Plugins(self, dir); err != nil || !slices.Equal(done, want) {
			t.Errorf("Plugins = %q, %v, want %q", done, err, want)
		}
	}
	install("flannel", "host-local", "loopback", "portmap")
	install()
	for _, name := range append(bundled.Names(), "flannel") {
		path := filepath.Join(dir, name)
		same, err := equalFiles(self, path)
		if err != nil || same == (name == "bridge") {
			t.Errorf("%s is this program: %v, %v", name, same, err)
		}
	}
	// Another release of flannel comes back with "cp", and writes into the file.
	write(t, filepath.Join(dir, "flannel"), "another release's", 0o755)
	if same, err := equalFiles(self, filepath.Join(dir, "host-local")); err != nil || !same {
		t.Errorf("host-local is that program, too: %v", err)
	}
	// An update replaces what the links lead to.
	write(t, filepath.Join(dir, link.Program), "older", 0o755)
	install("flannel", "host-local", "loopback", "portmap")
}

func TestPluginsNeedNothing(t *testing.T) {
	dir, program := t.TempDir(), filepath.Join(t.TempDir(), "program")
	write(t, program, "program", 0o755)
	for _, name := range bundled.Names() {
		write(t, filepath.Join(dir, name), name, 0o755)
	}
	if done, err := Plugins(program, dir); err != nil || !slices.Equal(done, []string{"flannel"}) {
		t.Errorf("Plugins = %q, %v", done, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, link.Program)); !os.IsNotExist(err) {
		t.Errorf("a second copy of the program is there: %v", err)
	}
}

func equalFiles(a, b string) (bool, error) {
	x, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	y, err := os.ReadFile(b)
	return string(x) == string(y), err
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "cni-conf.json"), filepath.Join(dir, "net.d", "10-flannel.conflist")
	copies := func(from, to string, want bool) {
		t.Helper()
		if changed, err := File(from, to); err != nil || changed != want {
			t.Errorf("File = %v, %v, want %v", changed, err, want)
		}
	}
	write(t, from, "one", 0o640)
	copies(from, to, true)
	copies(from, to, false)
	write(t, from, "two", 0o640) // of the same length
	copies(from, to, true)
	write(t, from, "three", 0o640)
	copies(from, to, true)
	if err := os.Chmod(to, 0o600); err != nil {
		t.Fatal(err)
	}
	copies(from, to, true)
	if text, err := os.ReadFile(to); err != nil || string(text) != "three" {
		t.Errorf("the copy has %q, %v", text, err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the copy has %v, %v", info, err)
	}
	copies(from, filepath.Dir(to), true) // a folder
	if _, err := os.Stat(filepath.Join(dir, "net.d", "cni-conf.json")); err != nil {
		t.Error(err)
	}
	if _, err := File(filepath.Join(dir, "none"), to); err == nil {
		t.Error("a missing file is copied")
	}
}
