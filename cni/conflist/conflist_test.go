package conflist

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

const (
	sample  = `{"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "flannel"}]}`
	changed = `{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}]}`
)

// rig is a Keeper that runs, its source and its folder. It is made in a bubble.
type rig struct {
	*testing.T
	keeper       *Keeper
	source, path string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{T: t, source: filepath.Join(dir, "cni-conf.json"), path: filepath.Join(dir, "net.d", FileName)}
	r.write(r.source, sample)
	if err := os.Mkdir(filepath.Dir(r.path), 0o755); err != nil {
		t.Fatal(err)
	}
	r.keeper = New(r.source, filepath.Dir(r.path))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.keeper.Run(ctx) }()
	t.Cleanup(func() {
		before, _ := os.ReadFile(r.path)
		cancel()
		err := <-ended
		after, _ := os.ReadFile(r.path)
		if err != nil || string(before) != string(after) { // the daemon's end changes nothing
			t.Errorf("Run: %v, the file had %q and has %q", err, before, after)
		}
	})
	return r
}

func (r *rig) write(path, text string) {
	r.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
}

// has checks the published file; "" is none.
func (r *rig) has(when, want string) {
	r.Helper()
	synctest.Wait()
	got, err := os.ReadFile(r.path)
	if string(got) != want || (err != nil) != (want == "") {
		r.Errorf("%s the file has %q, %v; want %q", when, got, err, want)
	}
}

func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.write(r.path, "of an earlier run")
		time.Sleep(2 * every)
		r.has("before a call", "of an earlier run")
		r.keeper.Publish()
		r.has("after Publish", sample)
		if info, err := os.Stat(r.path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("the file: %v, %v", info, err)
		}
		if err := os.Remove(r.path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * every)
		r.has("after a deletion", sample)
		r.write(r.source, changed)
		time.Sleep(2 * every)
		r.has("after a change of the source", changed)
		r.write(r.source, "{")
		time.Sleep(2 * every)
		r.has("with a broken source", changed)
		if err := r.keeper.Withdraw(); err != nil {
			t.Error(err)
		}
		r.has("after Withdraw", "")
		r.write(r.path, sample)
		time.Sleep(2 * every)
		r.has("after somebody put it back", "")
		if err := r.keeper.Withdraw(); err != nil {
			t.Errorf("a second Withdraw: %v", err)
		}
		r.write(r.source, sample)
		r.keeper.Publish()
		r.has("after the second Publish", sample)
	})
}

// A broken source never becomes the engine's configuration: it would take the node
// for broken.
func TestBrokenSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, text := range []string{"", "{", `{"name": "n", "cniVersion": "1.0.0"}`, `{"cniVersion": "1.0.0", "plugins": [{"type": "flannel"}]}`, `{"name": "n", "plugins": []}`} {
			r := newRig(t)
			r.write(r.source, text)
			r.keeper.Publish()
			r.has("with the source "+text, "")
		}
	})
}

func TestNoSource(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	if err := os.WriteFile(path, []byte(sample), 0o644); err != nil {
		t.Fatal(err)
	}
	k := New("", dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k.Publish()
	if err := errors.Join(k.Withdraw(), k.Run(ctx)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file: %v", err)
	}
}

func TestBefore(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"05-cilium.conflist", "10-calico.conf", "10-flannel.conflist", "20-other.conflist", "00-readme.txt", ".1.conf"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, path := range before(filepath.Join(dir, FileName)) {
		names = append(names, filepath.Base(path))
	}
	if want := []string{".1.conf", "05-cilium.conflist", "10-calico.conf"}; !slices.Equal(names, want) {
		t.Errorf("before ours are %q, want %q", names, want)
	}
	if others := before(filepath.Join(dir, "none", FileName)); others != nil {
		t.Errorf("without a folder: %q", others)
	}
}
