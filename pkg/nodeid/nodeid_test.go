package nodeid

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(dir)
	if err != nil || again != first {
		t.Errorf("second time %v, %v; first %v", again, err, first)
	}
	other, err := Load(t.TempDir())
	if err != nil || other == first || other == (ID{}) {
		t.Errorf("another host has %v, %v; the first %v", other, err, first)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

func TestConcurrentLoads(t *testing.T) {
	dir := t.TempDir()
	ids := make([]ID, 20)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			var err error
			if ids[i], err = Load(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("%v and %v", id, ids[0])
		}
	}
}

func TestDamagedFile(t *testing.T) {
	for _, text := range []string{"", "xyz\n", "0123456789abcdef\n", "0123456789abcdef0123456789abcdef00\n"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "node-id")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if id, err := Load(dir); err == nil {
			t.Errorf("%q is %v", text, id)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != text {
			t.Errorf("the file was changed to %q, %v", now, err)
		}
	}
}
