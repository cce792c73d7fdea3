package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A host that speaks the formats of the contract, by a program that shares no
// code with ours, in one cluster with a host of ours: packets, small and bulk,
// go both ways.
func TestClassicPeer(t *testing.T) {
	overEachDataPath(t, func(t *testing.T, dataPath string) {
		for _, api := range []string{"2", "3"} {
			t.Run("api"+api, func(t *testing.T) { testClassicPeer(t, dataPath, api) })
		}
	})
}

// joinClassicPeer makes a host of ours and one of the classic format, with a container
// each.
func joinClassicPeer(t *testing.T, dataPath, api string) (a *node, container *netnstest.Host) {
	t.Helper()
	c := newCluster(t, api)
	a = c.node("a", dataPath)
	a.join()
	a.addContainer()

	classic := c.lab.Host("classic")
	subnet := netip.MustParsePrefix("10.5.200.0/24")
	startClassic(t, classic, "-etcd="+c.etcd.URL(), "-api="+api, "-subnet="+subnet.String(),
		"-public-ip="+classic.Addr().Addr().String())
	gateway := subnet.Addr().Next()
	classic.Bridge("docker0", netip.PrefixFrom(gateway, subnet.Bits()), 1472)
	container = classic.Container("classic-container", "docker0",
		netip.PrefixFrom(gateway.Next(), subnet.Bits()), gateway, 1472)
	a.awaitPeer(subnet, classic.Addr().Addr())
	return a, container
}

func testClassicPeer(t *testing.T, dataPath, api string) {
	a, container := joinClassicPeer(t, dataPath, api)
	for _, way := range [][2]*netnstest.Host{{a.container, container}, {container, a.container}} {
		from, to := way[0], way[1]
		eventually(t, "ping from "+from.Name(), func() error {
			return ping(t, from, to.Addr().Addr())
		})
		// The classic host cuts packets above its tunnel's MTU, so this arrives
		// only if no larger packet is sent.
		if err := ping(t, from, to.Addr().Addr(), "-M", "do", "-s", "1444"); err != nil {
			t.Errorf("largest packet from %s: %v", from.Name(), err)
		}
		copyBulk(t, from, to)
	}
}

func startClassic(t *testing.T, h *netnstest.Host, args ...string) {
	t.Helper()
	cmd := h.Command(context.Background(), programs.classicpeer, args...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("classicpeer: %v", err)
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("classicpeer says %q, %v; want ready", line, err)
	}
}

// copyBulk sends bytes over TCP from one host to another, which must be the
// same there.
func copyBulk(t *testing.T, from, to *netnstest.Host) {
	t.Helper()
	copyBulkTo(t, from, to, to.Addr().Addr())
}

// copyBulkTo is copyBulk to an address of the other host.
func copyBulkTo(t *testing.T, from, to *netnstest.Host, addr netip.Addr) {
	t.Helper()
	const size = 3 << 20
	seed := [32]byte{1}
	server, err := to.Listen(t.Context(), "tcp4", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		conn, err := server.Accept()
		if err != nil {
			failed = err
			return
		}
		defer conn.Close()
		failed = receive(conn, size, seed)
	})
	client, err := from.Dial(limited(t), "tcp4", server.Addr().String())
	if err == nil {
		err = send(client, size, seed)
	}
	if err != nil {
		server.Close()
	}
	wg.Wait()
	if err := errors.Join(err, failed); err != nil {
		t.Fatalf("copy from %s to %s: %v", from.Name(), to.Name(), err)
	}
}

// send writes pseudo-random bytes and ends the stream.
func send(conn net.Conn, size int64, seed [32]byte) error {
	_, err := io.CopyN(conn, rand.NewChaCha8(seed), size)
	return errors.Join(err, conn.Close())
}

// receive reads what send writes, to the end of the stream. It is an error if other bytes
// arrive.
func receive(conn net.Conn, size int64, seed [32]byte) error {
	s := sequence{rand: rand.NewChaCha8(seed)}
	if _, err := io.Copy(&s, conn); err != nil {
		return err
	}
	if s.n != size {
		return fmt.Errorf("%d bytes arrived, want %d", s.n, size)
	}
	return nil
}

// sequence is a writer that takes pseudo-random bytes only.
type sequence struct {
	rand *rand.ChaCha8
	n    int64 // bytes so far
	want []byte
}

func (s *sequence) Write(p []byte) (int, error) {
	s.want = slices.Grow(s.want[:0], len(p))[:len(p)]
	_, _ = s.rand.Read(s.want) // never fails
	if !bytes.Equal(p, s.want) {
		return 0, fmt.Errorf("other bytes arrived in the %d bytes from %d on", len(p), s.n)
	}
	s.n += int64(len(p))
	return len(p), nil
}
