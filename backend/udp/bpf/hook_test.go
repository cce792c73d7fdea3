package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/pinned"
	"github.com/coreos/flannel/pkg/tchook"
)

// eachHook runs a test with each kind of hooks that the kernel has: with tcx, and old,
// with only what Linux 5.10 has.
func eachHook(t *testing.T, test func(t *testing.T, old bool)) {
	netnstest.Require(t)
	hooks, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	if hooks == "tcx" {
		t.Run("tcx", func(t *testing.T) { test(t, false) })
	}
	t.Run("filters", func(t *testing.T) { test(t, true) })
}

// detachByHand detaches a program as bpftool or tc does.
func (h *host) detachByHand(name string) {
	h.t.Helper()
	switch a := h.path.hooks[name].Hook.(type) {
	case tchook.Link:
		h.must(a.Detach())
	case *tchook.Filter:
		h.must(h.Netlink().FilterDel(&netlink.BpfFilter{FilterAttrs: a.Attrs(), Fd: -1}))
	}
}

// filtersAt lists the filters of an interface at the place of a kind of programs.
func (h *host) filtersAt(name string, kind ebpf.AttachType) []netlink.Filter {
	h.t.Helper()
	l, err := h.Netlink().LinkByName(name)
	h.must(err)
	all, err := h.Netlink().FilterList(l, parentOf(kind))
	h.must(err)
	return all
}

func parentOf(kind ebpf.AttachType) uint32 {
	if kind == ebpf.AttachTCXEgress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// foreignFilter adds a filter before all others of an interface.
func (h *host) foreignFilter(name string, where ebpf.AttachType, p *ebpf.Program) {
	h.t.Helper()
	run(h.t, h.Host, "tc", "qdisc", "replace", "dev", name, "clsact")
	h.must(h.Netlink().FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: h.link(name), Parent: parentOf(where), Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          p.FD(), Name: "foreign", DirectAction: true,
	}))
}

// The qdisc that filters need goes with the last of them, unless it was there before.
func TestFiltersQdisc(t *testing.T) {
	for _, before := range []bool{false, true} {
		_, hosts := newHostsBy(t, true, false)
		a := hosts[0]
		if before {
			run(t, a.Host, "tc", "qdisc", "add", "dev", netnstest.Uplink, "clsact")
		}
		c := a.config()
		c.PinDir = filepath.Join(newPinRoot(t), "flannel", "a")
		a.attach(c, nil)
		a.must(a.path.Close())
		a.remove(c.PinDir)
		if got := run(t, a.Host, "tc", "qdisc", "show", "dev", netnstest.Uplink); strings.Contains(got, "clsact") != before {
			t.Errorf("clsact was there before: %v; now there is\n%s", before, got)
		}
	}
}

// Another program's filter that does not let ours come first is named.
func TestFiltersPreferenceTaken(t *testing.T) {
	_, hosts := newHostsBy(t, true, false)
	a := hosts[0]
	a.load(a.config())
	run(t, a.Host, "tc", "qdisc", "add", "dev", netnstest.Uplink, "clsact")
	// All filters of one preference have one protocol.
	a.must(a.Netlink().FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: a.link(netnstest.Uplink), Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_IP},
		Fd:          a.path.DecapL2.FD(), Name: "foreign", DirectAction: true,
	}))
	err := a.Do(func() error { return a.path.Attach([]int{a.link(netnstest.Uplink)}) })
	if err == nil || !strings.Contains(err.Error(), "preference 1") {
		t.Errorf("Attach returns %v, want the preference that is taken", err)
	}
	if got := a.filtersAt(netnstest.Uplink, ebpf.AttachTCXIngress); len(got) != 1 {
		t.Errorf("the filters are %v, want the other program's", got)
	}
}

// Load removes the pins of filters after their namespace has gone.
func TestLeftOverNamespace(t *testing.T) {
	_, hosts := newHostsBy(t, true, false)
	a := hosts[0]
	root := filepath.Join(newPinRoot(t), "flannel")
	left := filepath.Join(root, "left")
	c := a.config()
	c.PinDir = left
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		failed <- pinInNewNamespace(c)
	}()
	a.must(<-failed)
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for { // the kernel removes a namespace some time later
		a.must(pinned.Prepare(filepath.Join(root, "a"), removeGone))
		_, err := os.Stat(left)
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("the pins stay: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// pinInNewNamespace pins a path in a namespace that ends with the calling thread.
func pinInNewNamespace(c Config) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	tun, err := netnstest.OpenTUN(deviceName)
	if err != nil {
		return err
	}
	l, err := netlink.LinkByName(deviceName)
	if err != nil {
		return err
	}
	c.Device = l.Attrs().Index
	p, err := Load(c)
	if err != nil {
		return err
	}
	err = p.Attach(nil)
	if gone, goneErr := pinned.NamespaceIsGone(c.PinDir); gone || goneErr != nil {
		err = errors.Join(err, fmt.Errorf("the namespace is said to be gone: %v, %w", gone, goneErr))
	}
	return errors.Join(err, p.Close(), tun.Close())
}

func TestFilterNames(t *testing.T) {
	for _, k := range []tchook.Key{{Egress: true, Index: 7, Owner: 7}, {Index: 2, Owner: 7}} {
		if got, err := parseFilter(filterName(k)); err != nil || got != k {
			t.Errorf("parseFilter(%q) = %v, %v, want %v", filterName(k), got, err, k)
		}
	}
	for _, wrong := range []string{filterIn, filterIn + "2", filterOut + "2_", filterOut + "_x"} {
		if got, err := parseFilter(wrong); err == nil {
			t.Errorf("parseFilter(%q) = %v, want an error", wrong, got)
		}
	}
}
