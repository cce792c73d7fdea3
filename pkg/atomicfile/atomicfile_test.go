package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// holds checks a file's content and mode, and that its folder has no other file.
func holds(t *testing.T, path, want string, mode fs.FileMode) {
	t.Helper()
	text, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(text) != want || info.Mode() != mode {
		t.Errorf("%s has %q, %v, %v; want %q with mode %v", path, text, info, errors.Join(err, statErr), want, mode)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("the folder has %v, %v; want one file", left, err)
	}
}

// Neither the umask nor the old file's mode applies.
func TestWrite(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	path := filepath.Join(t.TempDir(), "folder", "file")
	for _, mode := range []fs.FileMode{0o644, 0o400, 0o600, 0o666} {
		text := mode.String()
		if err := Write(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		holds(t, path, text, mode)
	}
}

func TestCreateLeavesTheFile(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	path := filepath.Join(t.TempDir(), "folder", "file")
	if err := Create(path, []byte("first"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a file: %v", err)
	}
	holds(t, path, "first", 0o644)
}

// A failure leaves no temporary file.
func TestFailureLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, nil, 0o644); err == nil {
		t.Error("a folder was replaced")
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("the folder has %v, %v", left, err)
	}
	if err := Write(filepath.Join(path, "file", "below"), nil, 0o644); err != nil {
		t.Error(err)
	}
	if err := Write(filepath.Join(path, "file", "below", "a file"), nil, 0o644); err == nil {
		t.Error("a file was written below a file")
	}
}

func TestCopy(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	from := filepath.Join(t.TempDir(), "from")
	if err := os.WriteFile(from, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "folder", "file")
	for _, mode := range []fs.FileMode{0o755, 0o440} {
		if err := os.Chmod(from, mode); err != nil {
			t.Fatal(err)
		}
		if err := Copy(from, path); err != nil {
			t.Fatal(err)
		}
		holds(t, path, "text", mode)
	}
	if err := Copy(from+"none", path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("copy of no file: %v", err)
	}
	if err := Copy(filepath.Dir(from), path); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("copy of a folder: %v", err)
	}
	holds(t, path, "text", 0o440)
}
