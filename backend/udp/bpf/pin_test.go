package bpf

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/pinned"
)

// newPinRoot mounts a bpffs for the test.
func newPinRoot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// attached returns the number of programs of a kind on an interface.
func (h *host) attached(name string, kind ebpf.AttachType) int {
	h.t.Helper()
	if h.path.filters {
		return len(h.filtersAt(name, kind))
	}
	var n int
	h.must(h.Do(func() error {
		r, err := link.QueryPrograms(link.QueryOptions{Target: h.link(name), Attach: kind})
		if err == nil {
			n = len(r.Programs)
		}
		return err
	}))
	return n
}

// TestRestart closes a path and loads it again under a running ping: as it was, with
// the pins of an earlier release, and for another configuration. Then it removes it.
func TestRestart(t *testing.T) {
	eachHook(t, func(t *testing.T, old bool) {
		t.Run("after GRO", func(t *testing.T) { testRestart(t, families{}, old, "on") })
		t.Run("before GRO", func(t *testing.T) { testRestart(t, families{}, old, "off") })
	})
	for _, f := range laterFamilies {
		t.Run(f.String(), func(t *testing.T) {
			f.require(t)
			testRestart(t, f, false, "on")
		})
	}
}

func testRestart(t *testing.T, f families, old bool, tso string) {
	_, hosts := newHostsOf(t, f, old, false, true)
	a, b := hosts[0], hosts[1]
	peers := []Peer{peerAt(b.subnet, b.local(), true)}
	c := a.config()
	c.PinDir = filepath.Join(newPinRoot(t), "flannel", "a")
	b.set(peerAt(a.subnet, a.local(), true))
	run(t, a.Host, "ethtool", "-K", netnstest.Uplink, "gro", "on", "tso", tso)
	a.attach(c, peers)
	xdp := tso == "off"
	a.hasDecapXDP(netnstest.Uplink, xdp)
	if a.path.Adopted() {
		t.Error("adopted from an empty directory")
	}

	ping := a.Command(t.Context(), "ping", "-i", "0.002", "-c", "600", b.inner().String())
	stdout, err := ping.StdoutPipe()
	a.must(err)
	a.must(ping.Start())
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "bytes from") {
	}
	var counted uint64
	for i := range 5 {
		a.must(a.path.Close())
		a.load(c)
		if !a.path.Adopted() {
			t.Fatalf("restart %d: not adopted", i)
		}
		if got := a.entries(); len(got) != 1 || got[b.subnet] != peers[0] {
			t.Errorf("restart %d: peers are %v", i, got)
		}
		if n := a.statsOf(b.subnet).TxPackets; n < counted {
			t.Errorf("restart %d: %d packets counted, before %d", i, n, counted)
		} else {
			counted = n
		}
		a.set(peers...)
		a.attachTo(netnstest.Uplink)
		a.hasDecapXDP(netnstest.Uplink, xdp)
	}
	a.must(a.path.Close())
	a.pinsOfEarlierRelease(c)
	a.load(c)
	if a.path.Adopted() {
		t.Error("adopted the programs of an earlier release")
	}
	a.set(peers...)
	a.attachTo(netnstest.Uplink)
	a.hasDecapXDP(netnstest.Uplink, xdp)
	a.must(a.path.Close())
	c.MaxPeers[a.families.inner]++
	a.load(c)
	if a.path.Adopted() {
		t.Error("adopted for another configuration")
	}
	a.set(peers...)
	a.attachTo(netnstest.Uplink)
	var summary string
	for lines.Scan() {
		if strings.Contains(lines.Text(), "received") {
			summary = lines.Text()
		}
	}
	a.must(ping.Wait())
	if !strings.Contains(summary, "600 received, 0% packet loss") {
		t.Errorf("lost packets: %s", summary)
	}
	a.Exec("ping -c 1 " + b.inner().String()) // the others may have ended before the last restart
	untouched(t, a, b)
	if n := a.statsOf(b.subnet).TxPackets; counted == 0 || n == 0 {
		t.Errorf("the first path counted %d packets, the second %d", counted, n)
	}
	if dirs, err := filepath.Glob(filepath.Join(c.PinDir, "objects-*")); err != nil || len(dirs) != 1 {
		t.Errorf("pinned objects in %v: %v; want one directory", dirs, err)
	}

	a.must(a.path.Close())
	for name, kind := range map[string]ebpf.AttachType{deviceName: ebpf.AttachTCXEgress, netnstest.Uplink: ebpf.AttachTCXIngress} {
		if n := a.attached(name, kind); n != 1 {
			t.Errorf("%s runs %d programs, want 1", name, n)
		}
	}
	if xdp != a.hasXDP(netnstest.Uplink) {
		t.Errorf("XDP at the uplink after closing: %v", !xdp)
	}
	a.remove(c.PinDir)
	a.remove(c.PinDir)
	if a.hasXDP(netnstest.Uplink) {
		t.Error("XDP at the uplink after removal")
	}
	for name, kind := range map[string]ebpf.AttachType{deviceName: ebpf.AttachTCXEgress, netnstest.Uplink: ebpf.AttachTCXIngress} {
		if n := a.attached(name, kind); n != 0 {
			t.Errorf("%s runs %d programs after removal", name, n)
		}
	}
	if _, err := os.Stat(filepath.Dir(c.PinDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// pinsOfEarlierRelease renames the pinned objects to what releases before encap and
// decap have left: other identity, other names of programs, the same links.
func (h *host) pinsOfEarlierRelease(c Config) {
	h.t.Helper()
	earlier := filepath.Join(c.PinDir, "objects-earlier")
	h.must(os.Rename(c.objectsDir(), earlier))
	for now, then := range map[string]string{"encap": "out", "decap_l2": "in_ether", "decap_l3": "in_bare", "decap_xdp": "early"} {
		h.must(os.Rename(filepath.Join(earlier, now), filepath.Join(earlier, then)))
	}
}

// TestNoReader ends a host's process but keeps the device. The device has no carrier
// then (tun_detach, drivers/net/tun.c), but works.
func TestNoReader(t *testing.T) {
	_, hosts := newHosts(t, false, true)
	a, b := hosts[0], hosts[1]
	c := a.config()
	c.PinDir = filepath.Join(newPinRoot(t), "flannel", "a")
	b.set(peerAt(a.subnet, a.local(), true))
	a.attach(c, []Peer{peerAt(b.subnet, b.local(), true)})
	raw, err := a.tun.SyscallConn()
	a.must(err)
	a.must(raw.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) }))
	a.must(err)
	a.must(errors.Join(a.tun.Close(), a.socket.Close(), a.path.Close()))

	run(t, b.Host, "ping", "-c", "10", "-i", "0.01", "-w", "5", a.inner().String())
	run(t, a.Host, "ping", "-c", "10", "-i", "0.01", "-w", "5", b.inner().String())
	iperf(t, a.Host, b.Host, b.inner(), "-n", "20M")
	a.remove(c.PinDir)
}

// TestUnpinned: a path without pins leaves nothing after Close.
func TestUnpinned(t *testing.T) { eachHook(t, testUnpinned) }

func testUnpinned(t *testing.T, old bool) {
	_, hosts := newHostsBy(t, old, true)
	a := hosts[0]
	if n := a.attached(netnstest.Uplink, ebpf.AttachTCXIngress); n != 1 {
		t.Errorf("uplink runs %d programs, want 1", n)
	}
	a.must(a.path.Close())
	a.must(a.path.Close())
	for name, kind := range map[string]ebpf.AttachType{deviceName: ebpf.AttachTCXEgress, netnstest.Uplink: ebpf.AttachTCXIngress} {
		if n := a.attached(name, kind); n != 0 {
			t.Errorf("%s runs %d programs after closing", name, n)
		}
	}
}

// TestLeftOver: Load removes the pins of a device that has gone, and does not adopt an
// interrupted pinning. The pins of filters stay as long as their namespace.
func TestLeftOver(t *testing.T) { eachHook(t, testLeftOver) }

func testLeftOver(t *testing.T, old bool) {
	lab, hosts := newHostsBy(t, old, false, false)
	a, b := hosts[0], hosts[1]
	root := filepath.Join(newPinRoot(t), "flannel")
	gone := lab.Namespace("gone")
	a.must(gone.Do(func() error {
		tun, err := netnstest.OpenTUN(deviceName)
		if err != nil {
			return err
		}
		l, err := gone.Netlink().LinkByName(deviceName)
		if err != nil {
			return err
		}
		c := a.config()
		c.Device, c.PinDir = l.Attrs().Index, filepath.Join(root, "gone")
		p, err := Load(c)
		if err != nil {
			return err
		}
		return errors.Join(p.Attach(nil), p.Close(), tun.Close())
	}))

	c := a.config()
	c.PinDir = filepath.Join(root, "a")
	a.must(os.MkdirAll(filepath.Join(c.objectsDir()+pinned.Unfinished, "x"), 0o700))
	a.attach(c, nil)
	if a.path.Adopted() {
		t.Error("adopted an interrupted pinning")
	}
	other := b.config()
	other.PinDir = filepath.Join(root, "b")
	b.attach(other, nil)
	entries, err := os.ReadDir(root)
	a.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := "a b"
	if old {
		want += " gone"
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("pinned are %q, want %q", got, want)
	}
	a.remove(c.PinDir)
	b.remove(other.PinDir)
}

// TestDeviceAgain creates the device again while the pins of the first one exist.
func TestDeviceAgain(t *testing.T) { eachHook(t, testDeviceAgain) }

func testDeviceAgain(t *testing.T, old bool) {
	_, hosts := newHostsBy(t, old, false)
	a := hosts[0]
	const name = "flannel1"
	c := a.config()
	c.PinDir = filepath.Join(newPinRoot(t), "flannel", "a")
	for range 2 {
		var tun *os.File
		a.must(a.Do(func() (err error) {
			tun, err = netnstest.OpenTUN(name)
			return err
		}))
		c.Device = a.link(name)
		a.attach(c, nil)
		if n := a.attached(name, ebpf.AttachTCXEgress); n != 1 {
			t.Errorf("%s runs %d programs, want 1", name, n)
		}
		a.must(errors.Join(a.path.Close(), tun.Close()))
	}
	a.remove(c.PinDir)
}

func TestPinDir(t *testing.T) {
	_, hosts := newHosts(t, false, false)
	seen := make(map[string]bool)
	for _, h := range hosts {
		for _, device := range []string{"flannel0", "flannel1"} {
			h.must(h.Do(func() error {
				dir, err := PinDir(device)
				if filepath.Dir(dir) != "/sys/fs/bpf/flannel" {
					t.Errorf("directory is %s", dir)
				}
				seen[dir] = true
				return err
			}))
		}
	}
	if len(seen) != 4 {
		t.Errorf("two devices in two namespaces have the directories %v", seen)
	}
}

// TestNotBPFFS: Load refuses a PinDir that is not on a bpffs.
func TestNotBPFFS(t *testing.T) {
	_, hosts := newHosts(t, false)
	c := hosts[0].config()
	c.PinDir = t.TempDir()
	hosts[0].must(hosts[0].Do(func() error {
		p, err := Load(c)
		if err == nil {
			return errors.Join(errors.New("loaded"), p.Close())
		}
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		return nil
	}))
}

// TestMount runs itself again in a new mount namespace without a bpffs at /sys/fs/bpf.
func TestMount(t *testing.T) {
	netnstest.Require(t)
	const marker = "FLANNEL_TEST_MOUNT"
	if os.Getenv(marker) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c",
			`umount /sys/fs/bpf 2>/dev/null; exec "$0" -test.run '^TestMount$' -test.v`, self)
		c.Env = append(os.Environ(), marker+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	_, hosts := newHosts(t, false)
	a := hosts[0]
	c := a.config()
	a.must(a.Do(func() (err error) {
		c.PinDir, err = PinDir(deviceName)
		return err
	}))
	a.attach(c, nil)
	a.must(a.path.Close())
	a.load(c)
	if !a.path.Adopted() {
		t.Error("not adopted")
	}
}
