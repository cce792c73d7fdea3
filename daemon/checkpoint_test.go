package daemon

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// A checkpoint is of one network in one store. A daemon of another ignores it, and
// it is removed when another host has the lease.
func TestCheckpointOfAnotherNetwork(t *testing.T) {
	dir := t.TempDir()
	fileOf := func(args ...string) *checkpointFile {
		return newCheckpointFile(parse(t, append([]string{"-state-dir=" + dir, "-etcd-endpoints=http://192.0.2.1:2379"}, args...)...))
	}
	f := fileOf()
	ours := netip.MustParseAddr("192.0.2.10")
	if err := f.save(checkpoint{API: "3",
		Lease:   subnet.Lease{Subnet: netip.MustParsePrefix("10.5.7.0/24"), Attrs: subnet.Attrs{PublicIP: ours}, Expiration: time.Now().Add(time.Hour)},
		Written: clock.Now(), Ends: clock.SinceBoot() + time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	if left := f.load().remaining(subnet.Attrs{PublicIP: ours}, clock.Now()); left <= 59*time.Minute || left > time.Hour {
		t.Errorf("the same daemon has its lease for %v, want an hour", left)
	}
	for name, other := range map[string]*checkpointFile{
		"prefix":    fileOf("-etcd-prefix=/other"),
		"endpoints": fileOf("-etcd-endpoints=http://192.0.2.2:2379"),
		"API":       fileOf("-etcd-api=2"),
	} {
		if other.load() != nil {
			t.Errorf("a daemon with another %s loads the checkpoint", name)
		}
	}
	for name, same := range map[string]*checkpointFile{
		"API":                   fileOf("-etcd-api=3"),
		"endpoints and another": fileOf("-etcd-endpoints=http://192.0.2.2:2379,http://192.0.2.1:2379"),
	} {
		if same.load() == nil {
			t.Errorf("a daemon that names the same %s does not load the checkpoint", name)
		}
	}
	if err := errors.Join(f.remove(), f.remove()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) || f.load() != nil {
		t.Errorf("the checkpoint of the lost lease is still there: %v", err)
	}
}

// A damaged file costs no more than the checkpoint.
func TestDamagedCheckpointIsIgnored(t *testing.T) {
	f := newCheckpointFile(parse(t, "-state-dir="+t.TempDir()))
	for _, c := range []checkpoint{{API: "3"}, {API: "3", Lease: subnet.Lease{Subnet: subnetOf(7)}, Peers: []*subnet.Lease{nil}}} {
		if err := f.save(c); err != nil {
			t.Fatal(err)
		}
		if got := f.load(); got != nil {
			t.Errorf("loaded %+v", got)
		}
	}
	if err := os.WriteFile(f.path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := f.load(); got != nil {
		t.Errorf("loaded %+v", got)
	}
}

func timestamp(boot string, sinceBoot time.Duration, wall time.Time) clock.Timestamp {
	return clock.Timestamp{Boot: boot, SinceBoot: sinceBoot, Wall: wall}
}

// The remaining time does not depend on the wall clock, and counts suspend. After
// a reboot it is by the wall clock, unless that went back.
func TestCheckpointRemaining(t *testing.T) {
	ours := netip.MustParseAddr("192.0.2.10")
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	written := timestamp("boot", 10*time.Hour, noon)
	held := &checkpoint{Lease: subnet.Lease{Attrs: subnet.Attrs{PublicIP: ours}, Expiration: noon.Add(time.Hour)}, Written: written, Ends: 11 * time.Hour}
	reserved := &checkpoint{Lease: subnet.Lease{Attrs: subnet.Attrs{PublicIP: ours}, Reserved: true}, Written: written}
	for name, test := range map[string]struct {
		last *checkpoint
		now  clock.Timestamp
		want time.Duration
	}{
		"no checkpoint":                  {nil, written, 0},
		"at once":                        {held, written, time.Hour},
		"clock set forward":              {held, timestamp("boot", 10*time.Hour+time.Minute, noon.Add(240*time.Hour)), 59 * time.Minute},
		"clock set back":                 {held, timestamp("boot", 12*time.Hour, noon.Add(-time.Hour)), -time.Hour},
		"suspended, or off the network":  {held, timestamp("boot", 40*time.Hour, noon.Add(30*time.Hour)), -29 * time.Hour},
		"rebooted":                       {held, timestamp("another", time.Minute, noon.Add(20*time.Minute)), 40 * time.Minute},
		"rebooted after the end":         {held, timestamp("another", time.Minute, noon.Add(2*time.Hour)), -time.Hour},
		"rebooted with the clock behind": {held, timestamp("another", time.Minute, noon.Add(-time.Second)), 0},
		"rebooted, no battery clock":     {held, clock.Timestamp{Boot: "another", Wall: noon.Add(20 * time.Minute), Unset: true}, 0},
		"another time namespace":         {held, clock.Timestamp{Boot: "boot", SinceBoot: 110*time.Hour + 20*time.Minute, Offset: 100 * time.Hour, Wall: noon}, 40 * time.Minute},
		"boots have no name":             {held, timestamp("", 10*time.Hour, noon.Add(20*time.Minute)), 40 * time.Minute},
		"reserved":                       {reserved, timestamp("another", 0, noon.Add(-time.Hour)), 1<<63 - 1},
	} {
		if got := test.last.remaining(subnet.Attrs{PublicIP: ours}, test.now); got != test.want {
			t.Errorf("%s: %v left, want %v", name, got, test.want)
		}
	}
	if got := held.remaining(subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.11")}, written); got != 0 {
		t.Errorf("another address: %v left", got)
	}
}

// The writer saves changed peers at once, unless it has just written for long, and also
// when it ends.
func TestCheckpointWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		w := newCheckpointWriter(r.checkpoints, r.state, r.peers, m.store.Opened)
		go func() { ended <- w.Run(ctx) }()
		peer := subnet.Lease{Subnet: subnetOf(8), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.8")}}
		r.peers.apply([]subnet.Event{{Type: subnet.Added, Lease: &peer}})
		load := func() *checkpoint {
			t.Helper()
			c := r.checkpoints.load()
			if c == nil || c.Lease.Subnet != m.lease.Subnet || c.API != m.store.API || c.Config.Network != m.config.Network {
				t.Fatalf("the checkpoint is %+v", c)
			}
			return c
		}
		synctest.Wait()
		if got := load().subnets(); !slices.Equal(got, []netip.Prefix{peer.Subnet}) {
			t.Errorf("saved the peers %v", got)
		}
		const pause = checkpointInterval / 4
		w.next = time.Now().Add(pause)
		second := subnet.Lease{Subnet: subnetOf(9), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.9")}}
		r.peers.apply([]subnet.Event{{Type: subnet.Added, Lease: &second}})
		synctest.Wait()
		if got := load().subnets(); len(got) != 1 {
			t.Errorf("saved the peers %v during the pause", got)
		}
		time.Sleep(pause)
		synctest.Wait()
		if got := load().subnets(); len(got) != 2 {
			t.Errorf("saved the peers %v after the pause", got)
		}
		r.peers.apply([]subnet.Event{{Type: subnet.Removed, Lease: &peer}})
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := load().subnets(); !slices.Equal(got, []netip.Prefix{second.Subnet}) {
			t.Errorf("saved the peers %v at the end", got)
		}
	})
}

// countedPauses counts the pauses.
type countedPauses struct {
	pauses
	n *int
}

func (c countedPauses) NextBackOff() time.Duration {
	*c.n++
	return c.pauses.NextBackOff()
}

// A checkpoint that could not be written is written later, although nothing else has
// changed. The attempts become fewer.
func TestCheckpointIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		if err := os.RemoveAll(r.options.stateDir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.options.stateDir, nil, 0o600); err != nil { // a file in the folder's place
			t.Fatal(err)
		}
		w := newCheckpointWriter(r.checkpoints, r.state, r.peers, m.store.Opened)
		w.now = func() clock.Timestamp { // the bubble's time: no clock is set meanwhile
			return clock.Timestamp{Boot: "boot", SinceBoot: time.Duration(time.Now().UnixNano()), Wall: time.Now().Round(0)}
		}
		runFor := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			if err := w.Run(ctx); err != nil {
				t.Error(err)
			}
		}
		attempts := 0
		w.pauses = countedPauses{w.pauses, &attempts}
		runFor(time.Hour)
		if attempts < 2 || attempts > 30 {
			t.Errorf("%d attempts in an hour", attempts)
		}
		if pause := time.Until(w.next); pause > 2*maxCheckpointPause || pause < maxCheckpointPause/4 {
			t.Errorf("the next attempt is in %v", pause)
		}
		if err := os.Remove(r.options.stateDir); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(2*maxCheckpointPause, func() {
			if c := r.checkpoints.load(); c == nil || c.Lease.Subnet != m.lease.Subnet {
				t.Errorf("the checkpoint is %+v", c)
			}
		})
		runFor(3 * maxCheckpointPause)
		if pause := time.Until(w.next); pause > 0 {
			t.Errorf("there is no write for %v, after a success", pause)
		}
	})
}

// A checkpoint without changes is not written again.
func TestCheckpointIsWrittenOnChange(t *testing.T) {
	r := newRig(t)
	m := r.store.NewManager(&subnet.Config{}, rigTTL, subnet.Timing{})
	m.Adopt(subnet.Lease{Subnet: subnetOf(7), Expiration: time.Now().Add(time.Hour), Rev: 5})
	r.state.update(func(s *progress) { s.manager, s.config = m, new(subnet.Config) })
	w := newCheckpointWriter(r.checkpoints, r.state, r.peers, store.Config{API: "3"})
	written := func() bool {
		t.Helper()
		w.save()
		c := r.checkpoints.load()
		if err := r.checkpoints.remove(); err != nil {
			t.Fatal(err)
		}
		return c != nil
	}
	if !written() || written() {
		t.Error("want one write of the first lease")
	}
	r.peers.apply(nil)
	if !written() || written() {
		t.Error("want one write of new peers")
	}
	w.saved.Written.Wall = w.saved.Written.Wall.Add(-time.Hour)
	if !written() || written() {
		t.Error("want one write after the clock was set")
	}
}

func TestCheckpointFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "file")
	if _, err := readCheckpoint(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read a missing file: %v", err)
	}
	for _, want := range []string{"2", "3"} {
		if err := writeCheckpoint(path, checkpoint{API: want}); err != nil {
			t.Fatal(err)
		}
		if got, err := readCheckpoint(path); err != nil || got.API != want {
			t.Errorf("read %v, %v; wrote %s", got, err, want)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Any flipped bit and any cut is detected.
func TestDamageIsDetected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := writeCheckpoint(path, checkpoint{API: "3"}); err != nil {
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
		if c, err := readCheckpoint(path); !errors.Is(err, errDamaged) {
			t.Errorf("%q gives %v, %v", text, c, err)
		}
	}
	for i := range good {
		check(good[:i])
		flipped := append([]byte{}, good...)
		flipped[i] ^= 1
		check(flipped)
	}
}

func TestFailedWriteKeepsTheOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := writeCheckpoint(path, checkpoint{API: "3"}); err != nil {
		t.Fatal(err)
	}
	if err := writeCheckpoint(path, checkpoint{Config: subnet.Config{Backend: []byte("{")}}); err == nil {
		t.Error("no error for a value without JSON")
	}
	if got, err := readCheckpoint(path); err != nil || got.API != "3" {
		t.Errorf("read %v, %v", got, err)
	}
}

// The configuration may hold a secret.
func TestOnlyTheOwnerReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "file")
	if err := writeCheckpoint(path, checkpoint{API: "3"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", name, info, err, want)
		}
	}
}
