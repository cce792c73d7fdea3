package ownfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	const nobody = 65534
	for _, c := range []struct {
		uid, gid int
		mode     fs.FileMode
		file     string // what the error says of a file; "": none
		dir      string
	}{
		{0, 0, 0o755, "", ""},
		{0, 0, 0o775, "", ""}, // root's group
		{0, nobody, 0o755, "", ""},
		{0, nobody, 0o775, "chmod go-w", "chmod go-w"},
		{0, 0, 0o757, "chmod go-w", "chmod go-w"},
		{0, 0, 0o777 | fs.ModeSticky, "chmod go-w", ""}, // as /tmp
		{nobody, 0, 0o700, "belongs to user 65534", "belongs to user 65534"},
		{nobody, 0, 0o777 | fs.ModeSticky, "belongs to user 65534", "belongs to user 65534"},
	} {
		dir := t.TempDir()
		file, folder := filepath.Join(dir, "file"), filepath.Join(dir, "folder")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for path, check := range map[string]struct {
			f    func(string) error
			want string
		}{file: {CheckFile, c.file}, folder: {CheckDir, c.dir}} {
			if err := os.Chown(path, c.uid, c.gid); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			err := check.f(path)
			if check.want == "" && err != nil || check.want != "" && (err == nil || !strings.Contains(err.Error(), check.want) || !strings.Contains(err.Error(), path)) {
				t.Errorf("%s of %d:%d, mode %v: %v, want %q", filepath.Base(path), c.uid, c.gid, c.mode, err, check.want)
			}
		}
	}
	if err := CheckFile(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("nothing there: %v", err)
	}
}
