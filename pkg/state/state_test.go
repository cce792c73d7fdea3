package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "file")
	var got []int
	if err := Read(path, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read what is not there: %v", err)
	}
	for _, want := range []int{1, 2} {
		if err := Write(path, []int{want}); err != nil {
			t.Fatal(err)
		}
		if err := Read(path, &got); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("read %v, %v; wrote %d", got, err, want)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Any bit that flips, and any cut, is noticed.
func TestDamageIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var v map[string]string
		if err := Read(path, &v); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q gives %v, %v", text, v, err)
		}
	}
	for i := range good {
		check(good[:i])
		flipped := append([]byte{}, good...)
		flipped[i] ^= 1
		check(flipped)
	}
}

func TestWriteKeepsTheOldOnFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, 1); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, make(chan int)); err == nil {
		t.Error("no error for what has no JSON")
	}
	var got int
	if err := Read(path, &got); err != nil || got != 1 {
		t.Errorf("read %d, %v", got, err)
	}
}

// A value may hold a secret.
func TestOthersCannotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "file")
	if err := Write(path, "secret"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", name, info, err, want)
		}
	}
}
