package reconcile

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// patience bounds every wait for what must happen.
const patience = 20 * time.Second

type bench struct {
	*testing.T
	host     *netnstest.Host
	listener *Listener
}

func newBench(t *testing.T) *bench {
	t.Helper()
	netnstest.Require(t)
	b := &bench{T: t, host: netnstest.New(t).Namespace("host")}
	b.check(b.host.Do(func() (err error) {
		b.listener, err = Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
		return err
	}))
	return b
}

func (b *bench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// addLink makes a change that the listener's group announces.
func (b *bench) addLink(name string) {
	b.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	b.check(b.host.Netlink().LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
}

// run runs the listener until the test ends; each change is a token.
func (b *bench) run(concerns func([]byte) bool) Signal {
	ctx, cancel := context.WithCancel(context.Background())
	changed, ended := NewSignal(), make(chan error, 1)
	go func() { ended <- b.listener.Run(ctx, concerns, changed.Set) }()
	b.Cleanup(func() {
		cancel()
		b.check(<-ended)
		b.check(b.listener.Close())
	})
	return changed
}

func (b *bench) wait(s Signal, what string) {
	b.Helper()
	select {
	case <-s:
	case <-time.After(patience):
		b.Fatalf("%s: no change within %v", what, patience)
	}
}

// What changes after Listen and before Run is not lost.
func TestListen(t *testing.T) {
	b := newBench(t)
	b.addLink("before")
	changed := b.run(nil)
	b.wait(changed, "before Run")
	b.addLink("during")
	b.wait(changed, "during Run")
}

// Groups above 32 have no bit in the mask of bind(2).
func TestListenToHighGroup(t *testing.T) {
	b := newBench(t)
	groups := []int{unix.RTNLGRP_LINK, unix.RTNLGRP_BRVLAN}
	l, err := Listen(unix.NETLINK_ROUTE, groups...)
	b.check(err)
	raw, err := l.sock.SyscallConn()
	b.check(err)
	var joined uint64
	b.check(raw.Control(func(fd uintptr) {
		joined, err = unix.GetsockoptUint64(int(fd), unix.SOL_NETLINK, unix.NETLINK_LIST_MEMBERSHIPS)
	}))
	b.check(err)
	if want := uint64(1<<(groups[0]-1) | 1<<(groups[1]-1)); joined != want {
		t.Errorf("joined the groups %b, want %b", joined, want)
	}
	b.check(errors.Join(l.Close(), b.listener.Close()))
}

func TestListenerFilters(t *testing.T) {
	b := newBench(t)
	seen := make(chan []byte, 100)
	changed := b.run(func(datagram []byte) bool {
		seen <- datagram
		return false
	})
	b.addLink("any")
	select {
	case <-seen:
	case <-time.After(patience):
		t.Fatal("no announcement")
	}
	select {
	case <-changed:
		t.Error("a change that concerns nobody")
	default:
	}
}

// Lost announcements are a change even if those that remain are none.
func TestListenerOverflows(t *testing.T) {
	b := newBench(t)
	b.check(b.listener.sock.SetReadBuffer(1)) // the kernel raises it to some 2 KiB
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		b.addLink(name)
	}
	b.wait(b.run(func([]byte) bool { return false }), "overflow")
}

func TestListenerEnds(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	b := newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	ended := make(chan error, 1)
	go func() { ended <- b.listener.Run(ctx, nil, func() {}) }()
	cancel()
	select {
	case err := <-ended:
		b.check(err)
	case <-time.After(patience):
		t.Fatal("Run goes on after its context ended")
	}
	b.check(b.listener.Close())
	if err := b.listener.Run(t.Context(), nil, func() {}); err == nil {
		t.Error("Run of a closed listener returns no error")
	}
}
