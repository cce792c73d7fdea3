package daemon

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/state"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/subnet"
)

// What is remembered is of one network in one store; it is of no use to a
// daemon of another, and gone once the lease is another host's.
func TestRecall(t *testing.T) {
	dir := t.TempDir()
	daemonOf := func(args ...string) *daemon {
		return New(parse(t, append([]string{"-state-dir=" + dir, "-etcd-endpoints=http://192.0.2.1:2379"}, args...)...), "test")
	}
	d := daemonOf()
	ours := netip.MustParseAddr("192.0.2.10")
	if err := state.Write(d.memoryFile(), memory{
		Prefix: d.options.store.Prefix, Endpoints: d.options.store.Endpoints, API: "3",
		Lease:   subnet.Lease{Subnet: netip.MustParsePrefix("10.5.7.0/24"), Attrs: subnet.Attrs{PublicIP: ours}, Expiration: time.Now().Add(time.Hour)},
		Written: clock.Now(), Ends: clock.SinceBoot() + time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	if left := d.recall().left(ours, clock.Now()); left <= 59*time.Minute || left > time.Hour {
		t.Errorf("the same daemon recalls its lease for %v, want an hour", left)
	}
	for name, other := range map[string]*daemon{
		"prefix":    daemonOf("-etcd-prefix=/other"),
		"endpoints": daemonOf("-etcd-endpoints=http://192.0.2.2:2379"),
		"API":       daemonOf("-etcd-api=2"),
	} {
		if other.recall() != nil {
			t.Errorf("a daemon with another %s recalls the lease", name)
		}
	}
	if daemonOf("-etcd-api=3").recall() == nil {
		t.Error("a daemon that names the same API recalls nothing")
	}
	if err := errors.Join(d.forget(), d.forget()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.memoryFile()); !errors.Is(err, fs.ErrNotExist) || d.recall() != nil {
		t.Errorf("the lost lease is still remembered: %v", err)
	}
}

func timestamp(boot string, sinceBoot time.Duration, wall time.Time) clock.Timestamp {
	return clock.Timestamp{Boot: boot, SinceBoot: sinceBoot, Wall: wall}
}

// A remembered lease ends when it does, whatever happened to the wall clock and
// in suspend; over a reboot the wall clock has to say, unless it is behind.
func TestMemoryLeft(t *testing.T) {
	ours := netip.MustParseAddr("192.0.2.10")
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	written := timestamp("boot", 10*time.Hour, noon)
	held := &memory{Lease: subnet.Lease{Attrs: subnet.Attrs{PublicIP: ours}, Expiration: noon.Add(time.Hour)}, Written: written, Ends: 11 * time.Hour}
	reserved := &memory{Lease: subnet.Lease{Attrs: subnet.Attrs{PublicIP: ours}, Reserved: true}, Written: written}
	for name, test := range map[string]struct {
		memory *memory
		now    clock.Timestamp
		want   time.Duration
	}{
		"nothing remembered":             {nil, written, 0},
		"at once":                        {held, written, time.Hour},
		"clock set forward":              {held, timestamp("boot", 10*time.Hour+time.Minute, noon.Add(240*time.Hour)), 59 * time.Minute},
		"clock set back":                 {held, timestamp("boot", 12*time.Hour, noon.Add(-time.Hour)), -time.Hour},
		"suspended, or off the network":  {held, timestamp("boot", 40*time.Hour, noon.Add(30*time.Hour)), -29 * time.Hour},
		"rebooted":                       {held, timestamp("another", time.Minute, noon.Add(20*time.Minute)), 40 * time.Minute},
		"rebooted after the end":         {held, timestamp("another", time.Minute, noon.Add(2*time.Hour)), -time.Hour},
		"rebooted with the clock behind": {held, timestamp("another", time.Minute, noon.Add(-time.Second)), 0},
		"boots have no name":             {held, timestamp("", 10*time.Hour, noon.Add(20*time.Minute)), 40 * time.Minute},
		"reserved":                       {reserved, timestamp("another", 0, noon.Add(-time.Hour)), 1<<63 - 1},
	} {
		if got := test.memory.left(ours, test.now); got != test.want {
			t.Errorf("%s: %v left, want %v", name, got, test.want)
		}
	}
	if got := held.left(netip.MustParseAddr("192.0.2.11"), written); got != 0 {
		t.Errorf("another address: %v left", got)
	}
}

// Networks of earlier runs are known from subnet.env and from the memory.
func TestPreviousNetworks(t *testing.T) {
	dir := t.TempDir()
	d := New(parse(t, "-state-dir="+dir, "-subnet-file="+dir+"/subnet.env"), "test")
	now, old := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.6.0.0/16")
	if got := d.previousNetworks(nil, now); len(got) > 0 {
		t.Errorf("before any run: %v", got)
	}
	remembered := &memory{Config: subnet.Config{Network: old}}
	if got := d.previousNetworks(remembered, now); len(got) != 1 || got[0] != old {
		t.Errorf("remembered %v: %v", old, got)
	}
	env := subnetfile.Env{Network: old, Subnet: netip.MustParsePrefix("10.6.1.0/24"), MTU: 1472}
	if err := subnetfile.Write(d.options.subnetFile, env); err != nil {
		t.Fatal(err)
	}
	if got := d.previousNetworks(remembered, now); len(got) != 1 || got[0] != old {
		t.Errorf("both say %v: %v", old, got)
	}
	if got := d.previousNetworks(nil, old); len(got) > 0 {
		t.Errorf("still at work: %v", got)
	}
}

// The last run's subnet is asked for, also when a reboot has emptied /run.
func TestPreviousSubnet(t *testing.T) {
	dir := t.TempDir()
	d := New(parse(t, "-state-dir="+dir, "-subnet-file="+dir+"/subnet.env"), "test")
	was := netip.MustParsePrefix("10.5.7.0/24")
	if got := d.previousSubnet(nil); got.IsValid() {
		t.Errorf("before any run: %v", got)
	}
	if got := d.previousSubnet(&memory{Lease: subnet.Lease{Subnet: was}}); got != was {
		t.Errorf("without subnet.env: %v, want %v", got, was)
	}
}
