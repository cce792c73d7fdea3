package fastpath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/tchook"
)

// TestMarksOfEarlierRun removes the fast path, adds a rule that drops a flow, and starts
// it again. The flow's entry has the marks of the first run.
func TestMarksOfEarlierRun(t *testing.T) { eachWay(t, testMarksOfEarlierRun) }

func testMarksOfEarlierRun(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	s := datagrams(t, a, b)
	flood(t, s, a, b)
	a.stop()
	a.must(a.Do(func() error { return Remove(a.config().PinDir, a.config().Name) }))
	a.nft("table ip user { chain forward { type filter hook forward priority filter; oifname " + a.outer() + " drop; }; }")
	a.run()
	a.serves(1)
	sent, _ := a.fast(func() {
		write(s.from, 64)
		silent(t, s.to)
	})
	if sent > 0 {
		t.Errorf("%d packets have passed the rule by", sent)
	}
}

// TestPortGoneMeanwhile replaces a container by one with its addresses, as Docker does,
// while user space is away. The flow to it is on the fast path.
func TestPortGoneMeanwhile(t *testing.T) {
	a, b := newRunning(t)
	s := datagrams(t, b, a)
	flood(t, s, b, a)
	a.stop()
	mac := a.mac(a.container, "eth0")
	a.must(a.Netlink().LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth-" + a.container.Name()}}))
	heir := a.second()
	inside, err := heir.Netlink().LinkByName("eth0")
	a.must(err)
	a.must(heir.Netlink().LinkSetHardwareAddr(inside, mac[:]))
	heir.DelAddr("eth0", heir.Addr())
	heir.AddAddr("eth0", netip.PrefixFrom(a.addr(), a.subnet.Bits()))
	heir.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), a.gateway(), "")
	a.greet(heir, a.addr())
	c := dial(t, heir, netip.AddrPortFrom(a.addr(), 7000), netip.AddrPortFrom(b.addr(), 7000))
	relay(t, c, s.from)
	write(s.from, 8)
	arrives(t, c, true)
}

// TestRemovedMeanwhile removes the fast path of a running host, as "flannel cleanup -force"
// does. The next look at the kernel puts it back, also for the process after.
func TestRemovedMeanwhile(t *testing.T) { eachHook(t, testRemovedMeanwhile) }

// eachHook runs a test with the hooks that the kernel has, and with those before Linux 6.6.
func eachHook(t *testing.T, test func(t *testing.T, direct bool, running func(t *testing.T, direct bool) (a, b *host))) {
	for name, running := range map[string]func(t *testing.T, direct bool) (a, b *host){
		"tcx, if the kernel has it": newRunningBy, "filters of tc": newRunningWithFilters,
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, direct bool) { test(t, direct, running) })
		})
	}
}

func testRemovedMeanwhile(t *testing.T, direct bool, running func(t *testing.T, direct bool) (a, b *host)) {
	a, b := running(t, direct)
	s := warm(t, a, b)
	hooks, err := a.programs.hooks()
	a.must(err)
	a.must(a.Do(func() error { return Remove(a.config().PinDir, a.config().Name) }))
	a.path.changed.Set()
	a.until("the hooks are back", func() bool {
		now, err := a.programs.hooks()
		a.must(err)
		return slices.Equal(now, hooks)
	})
	warm(t, a, b)
	s.exchange(1)
	a.stop()
	a.run()
	if !a.path.Adopted() {
		t.Error("the next process has not found the programs")
	}
}

// TestDetachedMeanwhile detaches the programs of a running host, as bpftool and tc do. The
// pins stay. The next look at the kernel attaches the programs again.
func TestDetachedMeanwhile(t *testing.T) { eachHook(t, testDetachedMeanwhile) }

func testDetachedMeanwhile(t *testing.T, direct bool, running func(t *testing.T, direct bool) (a, b *host)) {
	a, b := running(t, direct)
	s := warm(t, a, b)
	hooks, err := a.programs.hooks()
	a.must(err)
	for _, h := range hooks {
		a.detachByHand(h)
	}
	a.path.changed.Set()
	for _, h := range hooks {
		a.until(h.program+" is attached again", func() bool {
			at := a.hookAt(h)
			if at == nil {
				return false // between the former hook and the next
			}
			var why error
			err := a.Do(func() (err error) {
				why, err = at.Misplaced(h.index)
				return err
			})
			return err == nil && !errors.Is(why, tchook.ErrDetached)
		})
	}
	s.exchange(1)
	warm(t, a, b)
}

// hookAt returns a pinned hook; nil if there is none.
func (h *host) hookAt(at hook) (pinned tchook.Hook) {
	h.t.Helper()
	path := filepath.Join(h.config().PinDir, at.pin())
	var err error
	if at.owner != 0 {
		pinned, err = tchook.PinnedFilter(h.Netlink(), at.key(), path)
	} else {
		pinned, err = tchook.PinnedLink(path)
	}
	h.must(err)
	if pinned != nil {
		h.t.Cleanup(func() { pinned.Close() })
	}
	return pinned
}

// detachByHand takes a program off its interface, and leaves the pin.
func (h *host) detachByHand(at hook) {
	h.t.Helper()
	if l, ok := h.hookAt(at).(tchook.Link); ok {
		h.must(l.Detach())
		return
	}
	h.must(h.Netlink().FilterDel(&netlink.BpfFilter{FilterAttrs: at.key().Attrs(), Fd: -1}))
}

// TestFilterIsAttachedAgain deletes the qdisc of our filters.
func TestFilterIsAttachedAgain(t *testing.T) { eachWay(t, testFilterIsAttachedAgain) }

func testFilterIsAttachedAgain(t *testing.T, direct bool) {
	a, b := newRunningWithFilters(t, direct)
	warm(t, a, b)
	for _, device := range []string{"veth-a1", a.outer()} {
		a.Exec("tc qdisc del dev " + device + " clsact")
		a.until("the filters are back", func() bool { return len(a.filters()) == 3 })
		warm(t, a, b)
	}
}

// TestExpectedFlow has a helper of connection tracking expect a flow to the container. A
// rule drops the answers. The flow's entry has the marks of its parent.
func TestExpectedFlow(t *testing.T) {
	a, b := newRunning(t)
	a.Exec("iptables-nft -t raw -A PREROUTING -p udp --dport 69 -j CT --helper tftp")
	a.nft("table ip user { chain forward { type filter hook forward priority filter; oifname flannel0 udp dport 7001 drop; }; }")
	const tftp, own, expected = 69, 7000, 7001
	client, err := a.container.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(a.addr(), own).String())
	a.must(err)
	t.Cleanup(func() { client.Close() })
	server := func(port uint16) *net.UDPConn {
		return dial(t, b.container, netip.AddrPortFrom(b.addr(), port), netip.AddrPortFrom(a.addr(), own))
	}
	control, data := server(tftp), server(expected)
	send := func(to net.Conn, message string) {
		t.Helper()
		_, err := client.WriteTo([]byte(message), to.LocalAddr())
		a.must(err)
	}
	a.until("the request's entry has both marks", func() bool {
		send(control, "\x00\x01file\x00octet\x00")
		if _, err := control.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		write(control, 1)
		_, _, err := client.ReadFrom(make([]byte, 100))
		a.must(err)
		return a.marked(a.marks.Sent) > 0 && a.marked(a.marks.Received) > 0
	})
	write(data, 1)
	_, _, err = client.ReadFrom(make([]byte, 100))
	a.must(err)
	sent, _ := a.fast(func() {
		a.until("packets are counted as of an expected flow", func() bool {
			for range 64 {
				send(data, "answer")
			}
			return a.stats().LongWay["translated"].Packets > 0
		})
		silent(t, data)
	})
	if sent > 0 {
		t.Errorf("%d packets have passed the rule by", sent)
	}
}

// TestFailedLook has another process own the table of our rules, so that a look at the
// kernel fails. The status has the reason while it does.
func TestFailedLook(t *testing.T) {
	a, b := newRunning(t)
	warm(t, a, b)
	table := "ip " + tablePrefix + a.config().Name
	owner := a.Command(t.Context(), "nft", "-i")
	script, err := owner.StdinPipe()
	a.must(err)
	a.must(owner.Start())
	_, err = fmt.Fprintf(script, "delete table %[1]s; add table %[1]s { flags owner; }\n", table)
	a.must(err)
	a.until("the table has an owner", func() bool {
		out, err := a.Command(t.Context(), "nft", "list", "table", table).Output()
		return err == nil && strings.Contains(string(out), "flags owner")
	})
	a.path.changed.Set()
	a.until("the status has the reason", func() bool {
		return strings.Contains(strings.Join(a.path.Status().Off, ""), "make rules of fast path: ")
	})
	a.must(script.Close()) // the table goes with its owner
	a.must(owner.Wait())
	a.serves(1)
	warm(t, a, b)
}
