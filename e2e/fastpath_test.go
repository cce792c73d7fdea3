package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// fastPair starts two hosts whose containers have found each other by the fast
// path.
func fastPair(t *testing.T) (a, b *node, da, db *daemon) {
	t.Helper()
	netnstest.Require(t)
	netnstest.RequireConntrackTimeouts(t)
	_, a, b, da, db = kernelPair(t, "-fastpath=auto")
	for _, n := range []*node{a, b} {
		n.awaitFastPath()
	}
	return a, b, da, db
}

// directPair is fastPair without a tunnel.
func directPair(t *testing.T) (a, b *node, da, db *daemon) {
	t.Helper()
	netnstest.Require(t)
	netnstest.RequireConntrackTimeouts(t)
	c := newCluster(t, "3")
	c.use(`{"Type": "host-gw"}`)
	a, b = c.node("a", "-fastpath=auto"), c.node("b", "-fastpath=auto")
	da, db = c.joinPair(a, b)
	for _, n := range []*node{a, b} {
		n.awaitFastPath()
	}
	return a, b, da, db
}

// eachPair runs a test with a tunnel between the hosts, and without.
func eachPair(t *testing.T, test func(t *testing.T, pair func(*testing.T) (a, b *node, da, db *daemon))) {
	t.Run("udp", func(t *testing.T) { test(t, fastPair) })
	t.Run("host-gw", func(t *testing.T) { test(t, directPair) })
}

// awaitFastPath waits until the fast path serves the node's container.
func (n *node) awaitFastPath() {
	n.t.Helper()
	eventually(n.t, "the fast path of "+n.Name()+" serves the container", func() error {
		if f := n.status().Backend.FastPath; f.Containers != 1 || len(f.Off) > 0 {
			return fmt.Errorf("it is %+v", f)
		}
		return nil
	})
}

// awaitFastPathIfAny is awaitFastPath with a backend that has a fast path, and a kernel
// that has what it needs.
func (n *node) awaitFastPathIfAny() {
	n.t.Helper()
	eventually(n.t, "the fast path of "+n.Name()+" serves the container", func() error {
		f := n.status().Backend.FastPath
		if f == nil || f.Containers == 1 || strings.Contains(strings.Join(f.Off, ""), "the kernel lacks") {
			return nil
		}
		return fmt.Errorf("it is %+v", f)
	})
}

// exchangesByFastPath copies to a peer's container and back until both directions take
// the node's fast path.
func (n *node) exchangesByFastPath(peer *netnstest.Host) {
	n.t.Helper()
	eventually(n.t, "packets of both directions take the fast path of "+n.Name(), func() error {
		before := n.status().Backend.FastPath
		copyBulk(n.t, n.container, peer)
		copyBulk(n.t, peer, n.container)
		if after := n.status().Backend.FastPath; after.TxPackets-before.TxPackets < 1000 || after.RxPackets-before.RxPackets < 1000 {
			return fmt.Errorf("it went from %+v to %+v", before, after)
		}
		return nil
	})
}

// The peer may have any data path: bulk and small packets of both directions take the
// fast path of this host.
func TestFastPathToEachDataPath(t *testing.T) {
	for _, path := range dataPaths {
		t.Run(path, func(t *testing.T) {
			netnstest.Require(t)
			netnstest.RequireConntrackTimeouts(t)
			c := newCluster(t, "3")
			a, b := c.node("a", dataPathFlag+"kernel"), c.node("b", dataPathFlag+path)
			c.joinPair(a, b)
			a.exchangesByFastPath(b.container)
			e := newEcho(t, a, b)
			e.takesFastPath(a)
		})
	}
}

// Packets of a peer of the classic format take the fast path of this host, and those
// to it.
func TestFastPathToClassicPeer(t *testing.T) {
	netnstest.Require(t)
	netnstest.RequireConntrackTimeouts(t)
	a, container := joinClassicPeer(t, dataPathFlag+"kernel", "3")
	a.exchangesByFastPath(container)
}

// echo sends numbered datagrams from one container to another, which sends them
// back, and counts those that do not come back.
type echo struct {
	t        *testing.T
	out, in  net.PacketConn
	to       net.Addr
	next     uint64
	answered map[uint64]bool
}

func newEcho(t *testing.T, a, b *node) *echo {
	t.Helper()
	e := &echo{t: t, answered: make(map[uint64]bool)}
	var err error
	if e.out, err = a.container.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(a.containerAddr(), 7000).String()); err != nil {
		t.Fatal(err)
	}
	if e.in, err = b.container.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(b.containerAddr(), 7000).String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.out.Close(); e.in.Close() })
	e.to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.containerAddr(), 7000))
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := e.in.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = e.in.WriteTo(buf[:n], from)
		}
	}()
	return e
}

// exchange sends n datagrams, each after the answer to the one before.
func (e *echo) exchange(n int) {
	e.t.Helper()
	buf := make([]byte, 100)
	for range n {
		e.next++
		if _, err := e.out.WriteTo(binary.BigEndian.AppendUint64(nil, e.next), e.to); err != nil {
			e.t.Fatal(err)
		}
		if err := e.out.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			e.t.Fatal(err)
		}
		for {
			n, _, err := e.out.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				e.t.Fatalf("datagram %d or its answer is lost", e.next)
			}
			if err != nil {
				e.t.Fatal(err)
			}
			if n == 8 && binary.BigEndian.Uint64(buf) == e.next {
				break
			}
		}
	}
}

// takesFastPath exchanges datagrams until all of both directions take a node's fast path.
func (e *echo) takesFastPath(n *node) {
	e.t.Helper()
	eventually(e.t, "datagrams take the fast path of "+n.Name(), func() error {
		before := n.status().Backend.FastPath
		e.exchange(100)
		if after := n.status().Backend.FastPath; after.TxPackets-before.TxPackets < 100 || after.RxPackets-before.RxPackets < 100 {
			return fmt.Errorf("it went from %+v to %+v", before, after)
		}
		return nil
	})
}

// With the daemon killed and started again, no packet is lost, and the fast path carries
// them before, meanwhile and after.
func TestFastPathRestart(t *testing.T) { eachPair(t, testFastPathRestart) }

func testFastPathRestart(t *testing.T, pair func(*testing.T) (a, b *node, da, db *daemon)) {
	a, b, _, db := pair(t)
	b.countEcho()
	e := newEcho(t, a, b)
	e.takesFastPath(b)
	if b.echoOnLongWay() == 0 {
		t.Fatal("the first packets were not counted on the long way")
	}
	eventually(t, "packets to the peer count as sent by the fast path", func() error {
		s := b.status().Backend // which counts no packets of a peer by its route
		if s.DataPath == "kernel" && (len(s.Peers) != 1 || s.Peers[0].TxFast == 0) {
			return fmt.Errorf("the peers are %+v", s.Peers)
		}
		return nil
	})
	stream := startStream(t, a.container, b.container)
	const rounds = 500
	e.stayOnFastPath(b, rounds)
	db.kill()
	before := b.echoOnLongWay()
	e.exchange(rounds)
	// Each direction takes the long way again when connection tracking gives the flow the
	// timeout of a stream: the packet for that, and the first 16 after.
	const again = 2 * (1 + 16)
	if n := b.echoOnLongWay() - before; n > again {
		t.Errorf("%d packets of %d took the long way without the daemon", n, 2*rounds)
	}
	stream.progresses(t)
	db = b.launch()
	for begin := time.Now(); !db.isReady(); e.exchange(10) {
		if time.Since(begin) > patience {
			t.Fatalf("the daemon is not ready after %v", patience)
		}
	}
	stream.progresses(t)
	e.stayOnFastPath(b, rounds) // once the rules have judged the flow again
}

// countEcho has the node count the packets of an echo that its rules see: those on the
// long way.
func (n *node) countEcho() {
	n.t.Helper()
	if out, err := output(n.t, n.Host, "nft", "table ip user { chain forward { type filter hook forward priority filter; udp dport 7000 counter; }; }"); err != nil {
		n.t.Fatal(out)
	}
}

// echoOnLongWay returns the number that countEcho began.
func (n *node) echoOnLongWay() int {
	n.t.Helper()
	out, err := output(n.t, n.Host, "nft", "list chain ip user forward")
	m := regexp.MustCompile(`counter packets (\d+)`).FindStringSubmatch(out)
	if err != nil || m == nil {
		n.t.Fatalf("no counter: %v\n%s", err, out)
	}
	count, err := strconv.Atoi(m[1])
	if err != nil {
		n.t.Fatal(err)
	}
	return count
}

// stayOnFastPath exchanges datagrams until so many in a row take a node's fast path, which
// countEcho observes.
func (e *echo) stayOnFastPath(n *node, rounds int) {
	e.t.Helper()
	eventually(e.t, "datagrams stay on the fast path of "+n.Name(), func() error {
		before := n.echoOnLongWay()
		e.exchange(rounds)
		if count := n.echoOnLongWay() - before; count > 0 {
			return fmt.Errorf("%d packets of %d took the long way", count, 2*rounds)
		}
		return nil
	})
}

// A rule that must see each packet turns the fast path off, and the status says
// which.
func TestFastPathIsOff(t *testing.T) { eachPair(t, testFastPathIsOff) }

func testFastPathIsOff(t *testing.T, pair func(*testing.T) (a, b *node, da, db *daemon)) {
	a, _, _, _ := pair(t)
	script := "table ip user { chain forward { type filter hook forward priority filter; limit rate 1000/second accept; }; }"
	if out, err := output(t, a.Host, "nft", script); err != nil {
		t.Fatal(out)
	}
	eventually(t, "the status names the rule", func() error {
		if f := a.status().Backend.FastPath; f.Containers > 0 || !strings.Contains(strings.Join(f.Off, ""), `rule "limit" in chain ip user forward`) {
			return fmt.Errorf("it is %+v", f)
		}
		return nil
	})
	if out, err := output(t, a.Host, "nft", "delete table ip user"); err != nil {
		t.Fatal(out)
	}
	a.awaitFastPath()
}

// -fastpath=off removes what an earlier run has left.
func TestFastPathSwitchedOff(t *testing.T) { eachPair(t, testFastPathSwitchedOff) }

func testFastPathSwitchedOff(t *testing.T, pair func(*testing.T) (a, b *node, da, db *daemon)) {
	a, _, da, _ := pair(t)
	da.stop()
	a.join("-fastpath=off")
	if f := a.status().Backend.FastPath; f.Containers > 0 || strings.Join(f.Off, "") != "switched off by -fastpath" {
		t.Errorf("the status is %+v", f)
	}
	if out, err := output(t, a.Host, "nft", "list tables"); err != nil || strings.Contains(out, "fastpath") {
		t.Errorf("tables: %v\n%s", err, out)
	}
	for _, dir := range pinsOf(t, a) { // the kernel data path has pins of its own
		if filepath.Base(dir) == "fastpath" || strings.Contains(dir, "direct") {
			t.Errorf("still pinned: %s", dir)
		}
	}
}

// The fast path wraps packets by the programs of the kernel data path. It ends when
// these are suspended, and comes back with them.
func TestFastPathEndsWithThePrograms(t *testing.T) {
	a, b, da, _ := fastPair(t)
	e := newEcho(t, a, b)
	e.exchange(100) // these flows take it
	rule := hostRules(a, b)["IPsec out"]
	run := func(command string) {
		t.Helper()
		if out, err := output(t, a.Host, "sh", "-c", command); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	run(rule.add)
	eventually(t, "the programs and the fast path are gone", func() error {
		if s := a.status().Backend; s.DataPath != "offload" || s.FastPath.Containers > 0 {
			return fmt.Errorf("data path %s, fast path %+v", s.DataPath, s.FastPath)
		}
		return nil
	})
	if pins := pinsOf(t, a); len(pins) != 0 {
		t.Errorf("still pinned: %v", pins)
	}
	if out, err := output(t, a.Host, "nft", "list tables"); err != nil || strings.Contains(out, "fastpath") {
		t.Errorf("tables: %v\n%s", err, out)
	}
	if err := ping(t, a.container, b.containerAddr()); err == nil {
		t.Error("a packet passes the policy by")
	}
	run(rule.del)
	da.says("resume kernel data path")
	a.awaitFastPath()
	e.exchange(100)
}
