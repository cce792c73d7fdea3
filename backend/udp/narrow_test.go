package udp

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A path that is narrower than the uplink: TCP finds out by ICMP messages of
// ours, and what has no DF arrives in fragments.
func TestNarrowPath(t *testing.T) {
	for _, dataPath := range []string{"plain", "offload"} {
		t.Run(dataPath, func(t *testing.T) {
			n := cluster(t, dataPath, dataPath)
			a, b := n[0], n[1]
			// The kernel's route says what a router's ICMP message would.
			a.SetMTU(netnstest.Uplink, 1400)
			testNarrowUDP(t, a, b) // before TCP lets the container know the path
			l, err := b.container.Listen(t.Context(), "tcp4", ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			addr := netip.AddrPortFrom(b.container.Addr().Addr(), uint16(l.Addr().(*net.TCPAddr).Port)).String()
			c, err := a.container.Dial(t.Context(), "tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			peer, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			want := make([]byte, 1<<20)
			rand.Read(want)
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write(want)
				sent <- err
			}()
			got := make([]byte, len(want))
			_, err = io.ReadFull(peer, got)
			if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("TCP over a narrow path: %v, or the data changed", err)
			}
			if a.network.Stats().Drops["too_big"] == 0 {
				t.Error("no packet was too big, so the test tests nothing")
			}
		})
	}
}

// testNarrowUDP sends what may be fragmented, each larger than the path: a whole
// datagram, one that has options, fragments, and a batch of datagrams. The inner
// packets are fragmented, never the outer.
func testNarrowUDP(t *testing.T, a, b *node) {
	server, to := b.listenUDP(t)
	const routerAlert = "\x94\x04\x00\x00" // RFC 2113; copied into each fragment
	for _, c := range []struct {
		name          string
		options       string
		segment, size int
	}{
		{"whole", "", 0, 1440}, {"options", routerAlert, 0, 1400}, {"fragments", "", 0, 4000}, {"batch", "", 1440, 4 * 1440},
	} {
		client := a.dialUDP(t, to)
		allowFragments(t, client, c.options)
		setSegment(t, client, c.segment)
		want := datagram(7, c.size)
		if _, err := client.Write(want); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for buf := make([]byte, 5000); len(got) < len(want); {
			n, _, err := server.ReadFrom(buf)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			got = append(got, buf[:n]...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the data changed", c.name)
		}
	}
	if n := fragmentsMade(t, a); n != 0 {
		t.Errorf("the host sent %d fragments", n)
	}
}

// allowFragments makes a socket send without DF, and with these IP options.
func allowFragments(t *testing.T, c *net.UDPConn, options string) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT),
			unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, options))
	})
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
}

// fragmentsMade is FragCreates of RFC 4293: how many fragments a host's kernel
// has made.
func fragmentsMade(t *testing.T, n *node) int {
	t.Helper()
	var text []byte
	if err := n.Do(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/snmp"); return err }); err != nil {
		t.Fatal(err)
	}
	var names, values []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == "Ip:" {
			names, values = values, fields
		}
	}
	count, err := strconv.Atoi(values[slices.Index(names, "FragCreates")])
	if err != nil {
		t.Fatal(err)
	}
	return count
}
