package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/pinned"
	"github.com/coreos/flannel/pkg/tchook"
)

// foreign attaches another program that ends the chain of an interface with
// TCX_PASS. A filter always comes before those that are there.
func (h *host) foreign(name string, where ebpf.AttachType, anchor link.Anchor) {
	h.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	h.must(err)
	h.t.Cleanup(func() { h.must(p.Close()) })
	if h.path == nil && h.old || h.path != nil && h.path.filters {
		h.foreignFilter(name, where, p)
		return
	}
	h.must(h.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: h.link(name), Program: p, Attach: where, Anchor: anchor})
		if err == nil {
			h.t.Cleanup(func() { h.must(l.Close()) })
		}
		return err
	}))
}

// follower is a hook that a program of another follows.
type follower struct {
	tchook.Hook
	name string
}

func (f follower) Behind() ([]string, error) { return []string{f.name}, nil }

// The programs of others have an order, so that the status does not change by itself.
func TestBehindHasAnOrder(t *testing.T) {
	p := newPath(Config{Device: 1})
	for index := 2; index < 10; index++ {
		p.hooks[p.decapHook(index)] = attachment{follower{name: "program 7"}, index}
	}
	first, err := p.Behind()
	for range 20 {
		if again, err2 := p.Behind(); again != first || err != nil || err2 != nil {
			t.Fatalf("%q, %v, then %q, %v", first, err, again, err2)
		}
	}
}

// Our programs run before those that were there, and Attach puts them before those
// that came later.
func TestFirst(t *testing.T) { eachHook(t, testFirst) }

func testFirst(t *testing.T, old bool) {
	_, hosts := newHostsBy(t, old, false, true)
	a, b := hosts[0], hosts[1]
	b.set(peerAt(a.subnet, a.local(), true))
	a.foreign(netnstest.Uplink, ebpf.AttachTCXIngress, nil)
	a.foreign(deviceName, ebpf.AttachTCXEgress, nil)
	a.attach(a.config(), []Peer{peerAt(b.subnet, b.local(), true)})
	ping := func() { t.Helper(); run(t, a.Host, "ping", "-c", "1", "-w", "5", b.inner().String()) }
	ping()
	untouched(t, a, b)
	a.must(a.Do(a.path.Check))
	if n := a.path.Repairs(); n != 0 {
		t.Errorf("%d repairs, want none", n)
	}

	a.foreign(netnstest.Uplink, ebpf.AttachTCXIngress, link.Head())
	a.foreign(deviceName, ebpf.AttachTCXEgress, link.Head())
	if err := a.Do(a.path.Check); err == nil || !strings.Contains(err.Error(), "runs after program") || !strings.Contains(err.Error(), "foreign") {
		t.Errorf("with another program before ours Check returns %v", err)
	}
	a.attachTo(netnstest.Uplink)
	a.must(a.Do(a.path.Check))
	if n := a.path.Repairs(); n != 2 {
		t.Errorf("%d repairs, want 2", n)
	}
	sent, received := a.sent.Load(), a.received.Load()
	ping()
	if a.sent.Load() != sent || a.received.Load() != received {
		t.Error("after the repair packets bypass the programs")
	}
	var behind string
	a.must(a.Do(func() (err error) {
		behind, err = a.path.Behind()
		return err
	}))
	if strings.Count(behind, "(foreign)") != 2 {
		t.Errorf("behind ours are %q", behind)
	}
}

// A program that a person detached is attached again.
func TestDetachedByHand(t *testing.T) { eachHook(t, testDetachedByHand) }

func testDetachedByHand(t *testing.T, old bool) {
	for _, tso := range []string{"on", "off"} {
		_, hosts := newHostsBy(t, old, true, true)
		a, b := hosts[0], hosts[1]
		run(t, a.Host, "ethtool", "-K", netnstest.Uplink, "gro", "on", "tso", tso)
		a.attachTo(netnstest.Uplink)
		a.hasDecapXDP(netnstest.Uplink, tso == "off")
		for _, name := range a.path.hookNames() {
			a.detachByHand(name)
		}
		if err := a.Do(a.path.CheckLinks); err == nil || !strings.Contains(err.Error(), "is detached") {
			t.Errorf("without programs CheckLinks returns %v", err)
		}
		a.attachTo(netnstest.Uplink)
		a.must(a.Do(a.path.Check))
		a.hasDecapXDP(netnstest.Uplink, tso == "off")
		run(t, a.Host, "ping", "-c", "1", "-w", "5", b.inner().String())
		untouched(t, a, b)
	}
}

// The daemon of another namespace that starts meanwhile removes the pins of links, as
// those of a device that is gone.
func TestDetachedByHandAndPinsRemoved(t *testing.T) { eachHook(t, testDetachedByHandAndPinsRemoved) }

func testDetachedByHandAndPinsRemoved(t *testing.T, old bool) {
	_, hosts := newHostsBy(t, old, false, true)
	a, b := hosts[0], hosts[1]
	b.set(peerAt(a.subnet, a.local(), true))
	c := a.config()
	root := filepath.Join(newPinRoot(t), "flannel")
	c.PinDir = filepath.Join(root, "a")
	a.attach(c, []Peer{peerAt(b.subnet, b.local(), true)})
	for _, name := range a.path.hookNames() {
		a.detachByHand(name)
	}
	a.must(pinned.Prepare(filepath.Join(root, "other"), removeGone))
	if _, err := os.Stat(c.PinDir); errors.Is(err, os.ErrNotExist) == old {
		t.Fatalf("old kernel %v: look at pins: %v", old, err)
	}
	a.attachTo(netnstest.Uplink)
	a.must(a.Do(a.path.Check))
	a.must(a.path.Close())
	a.load(c)
	if !a.path.Adopted() {
		t.Error("the pins do not serve the next run")
	}
}

// Datagrams of a peer's programs that reach the socket are counted, whatever led
// them past ours.
func TestObserve(t *testing.T) {
	lab, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	raw, err := b.socket.SyscallConn()
	b.must(err)
	b.must(b.path.ObserveSocket(raw))
	passed := func() uint64 {
		t.Helper()
		n, err := b.path.Passed()
		b.must(err)
		return n
	}
	ping := func() { t.Helper(); run(t, a.Host, "ping", "-c", "3", "-i", "0.01", "-w", "5", b.inner().String()) }
	ping()
	// The reader's datagrams have a checksum.
	if !a.sendTrain(20000, b.inner()) {
		netnstest.UncheckedSegment.Missing(t, unix.EIO)
	}
	if n := passed(); n != 0 {
		t.Errorf("%d datagrams passed, want none", n)
	}
	// A container's forged datagrams are not the programs' to take.
	const other = "other"
	lab.Wire(a.Host, other, b.Host, other, 0)
	toSocket := make(chan []byte, 16)
	b.mu.Lock()
	b.odd = func(p []byte) { toSocket <- p }
	b.mu.Unlock()
	newWire(a, b, other, other).send(frame{
		outerSource: a.local(), outerDestination: b.local(), source: a.inner(), destination: b.inner(),
	}.bytes())
	wait(t, toSocket)
	b.mu.Lock()
	b.odd = nil
	b.mu.Unlock()
	if n := passed(); n != 0 {
		t.Errorf("%d forged datagrams passed, want none", n)
	}
	b.foreign(netnstest.Uplink, ebpf.AttachTCXIngress, link.Head())
	ping()
	if n := passed(); n != 3 {
		t.Errorf("%d datagrams passed, want 3", n)
	}
}

// Another program that comes and goes meanwhile makes no look at the programs fail.
func TestLooksWhileOthersCome(t *testing.T) {
	_, hosts := newHosts(t, true)
	a := hosts[0]
	if a.path.filters {
		netnstest.TCX.Skip(t, "the programs are filters of tc")
	}
	uplink := a.link(netnstest.Uplink)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "foreign", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	a.must(err)
	defer p.Close()
	var wg sync.WaitGroup
	done := make(chan struct{})
	var failed error
	wg.Go(func() {
		failed = a.Do(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				l, err := link.AttachTCX(link.TCXOptions{Interface: uplink, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()})
				if err != nil {
					return err
				}
				if err := l.Close(); err != nil {
					return err
				}
			}
		})
	})
	for range 3000 {
		if err := a.Do(a.path.CheckLinks); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	wg.Wait()
	a.must(failed)
}

// The paths of two networks share an uplink. The programs of either may be first; those
// of others may not.
func TestTwoPathsAtOneUplink(t *testing.T) { eachHook(t, testTwoPathsAtOneUplink) }

func testTwoPathsAtOneUplink(t *testing.T, old bool) {
	_, hosts := newHostsBy(t, old, false)
	a, root := hosts[0], newPinRoot(t)
	var paths []*Path
	for i, name := range []string{deviceName, "flannel1"} {
		if i > 0 {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = name
			a.must(a.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "end1"}))
			a.Up(name)
		}
		c := a.config()
		c.Device, c.Port, c.PinDir = a.link(name), port+uint16(i), filepath.Join(root, "flannel", name)
		a.attach(c, nil)
		defer a.remove(c.PinDir)
		paths = append(paths, a.path)
	}
	for range 2 {
		for i, p := range paths {
			if err := a.Do(p.Check); err != nil {
				t.Errorf("path %d: %v", i, err)
			}
			a.must(a.Do(func() error { return p.Attach([]int{a.link(netnstest.Uplink)}) }))
			if n := p.Repairs(); n != 0 {
				t.Errorf("path %d: %d repairs", i, n)
			}
		}
	}
	a.foreign(netnstest.Uplink, ebpf.AttachTCXIngress, link.Head())
	for i, p := range paths {
		if err := a.Do(p.Check); err == nil || !strings.Contains(err.Error(), "runs after program") {
			t.Errorf("path %d, with another program before it: %v", i, err)
		}
	}
}
