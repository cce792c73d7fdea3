package cni

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Two interfaces of one container have a file each. The first has the name that
// flannel-io/cni-plugin looks for as well.
func TestAttachments(t *testing.T) {
	a := attachments{filepath.Join(t.TempDir(), "flannel")}
	first, second := attachment{"c1", "eth0"}, attachment{"c1", "net1"}
	for range 2 { // the engine repeats an ADD
		if err := a.save(first, []byte("0")); err != nil {
			t.Fatal(err)
		}
		if err := a.save(second, []byte("1")); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, a.dir); !slices.Equal(got, []string{"c1", "c1:eth0", "c1:net1"}) {
		t.Fatalf("the folder has %q", got)
	}
	if short, err := os.ReadFile(filepath.Join(a.dir, "c1")); string(short) != "0" {
		t.Errorf("the short name has %q, %v", short, err)
	}
	if info, err := os.Stat(a.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	if all, err := a.list(); err != nil || !slices.Equal(all, []attachment{first, second}) {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := a.remove(second); err != nil {
		t.Fatal(err)
	}
	if got := files(t, a.dir); !slices.Equal(got, []string{"c1", "c1:eth0"}) {
		t.Errorf("after the second's removal the folder has %q", got)
	}
	if _, err := a.load(second); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second: %v", err)
	}
	if err := a.remove(first); err != nil {
		t.Fatal(err)
	}
	if got := files(t, a.dir); len(got) > 0 {
		t.Errorf("in the end the folder has %q", got)
	}
	if err := a.remove(first); err != nil {
		t.Errorf("a second removal: %v", err)
	}
}

// A file of flannel-io/cni-plugin is that of any interface. If that program
// deletes a container, the other file stays and is listed.
func TestAttachmentsOfTheOtherProgram(t *testing.T) {
	a := attachments{t.TempDir()}
	at := attachment{"c2", "eth0"}
	short := filepath.Join(a.dir, "c2")
	if err := os.WriteFile(short, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if conf, err := a.load(at); string(conf) != "theirs" {
		t.Errorf("load: %q, %v", conf, err)
	}
	if all, err := a.list(); err != nil || !slices.Equal(all, []attachment{{container: "c2"}}) {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := a.remove(at); err != nil || len(files(t, a.dir)) > 0 {
		t.Errorf("after the removal the folder has %q, %v", files(t, a.dir), err)
	}

	if err := a.save(at, []byte("ours")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(short); err != nil { // as the other program does
		t.Fatal(err)
	}
	if all, err := a.list(); err != nil || !slices.Equal(all, []attachment{at}) {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := a.remove(at); err != nil || len(files(t, a.dir)) > 0 {
		t.Errorf("after the removal the folder has %q, %v", files(t, a.dir), err)
	}
}

func TestAttachmentsWithoutFolder(t *testing.T) {
	a := attachments{filepath.Join(t.TempDir(), "none")}
	if all, err := a.list(); err != nil || len(all) > 0 {
		t.Errorf("list: %v, %v", all, err)
	}
	if _, err := a.load(attachment{"c", "eth0"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load: %v", err)
	}
}
