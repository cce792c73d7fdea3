package fastpath

import (
	"errors"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestRoutesStopPackets has routes, policy routing and settings of the host stop a flow
// that is on the fast path, in the direction from the container (sent) or to it.
func TestRoutesStopPackets(t *testing.T) { eachWay(t, testRoutesStopPackets) }

func testRoutesStopPackets(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	outer, elsewhere := a.outer(), netnstest.Uplink
	if direct {
		elsewhere = bridgeName
	}
	sent, received := datagramsAt(t, a, b, 7000), datagramsAt(t, b, a, 7001)
	for _, test := range []struct {
		name         string
		stop, resume string
		stopsSent    bool
		stopsGotten  bool
	}{
		{"forwarding", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1", true, true},
		{"forwarding of the bridge", "sysctl -qw net.ipv4.conf.docker0.forwarding=0", "sysctl -qw net.ipv4.conf.docker0.forwarding=1", true, false},
		{"forwarding of the tunnel or uplink", "sysctl -qw net.ipv4.conf." + outer + ".forwarding=0", "sysctl -qw net.ipv4.conf." + outer + ".forwarding=1", false, true},
		{"blackhole for the peer", "ip route add blackhole 10.5.2.2", "ip route del blackhole 10.5.2.2", true, false},
		{"unreachable container", "ip route add unreachable 10.5.1.2", "ip route del unreachable 10.5.1.2", false, true},
		{"prohibited source", "ip rule add from 10.5.1.2 prohibit", "ip rule del from 10.5.1.2 prohibit", true, false},
		{"prohibited interface", "ip rule add iif " + outer + " prohibit", "ip rule del iif " + outer + " prohibit", false, true},
		{
			"reverse path", "sysctl -qw net.ipv4.conf.all.rp_filter=1 && ip route add 10.5.2.2 dev " + elsewhere,
			"sysctl -qw net.ipv4.conf.all.rp_filter=0 && ip route del 10.5.2.2 dev " + elsewhere, true, true,
		},
		{"source that is the host's own", "ip addr add 10.5.2.2/32 dev lo", "ip addr del 10.5.2.2/32 dev lo", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			flood(t, sent, a, b)
			flood(t, received, b, a)
			a.execAll(test.stop)
			passJiffy(t)
			write(sent.from, 8)
			write(received.from, 8)
			arrives(t, sent.to, !test.stopsSent)
			arrives(t, received.to, !test.stopsGotten)
			a.execAll(test.resume)
			forgive(t, sent.from)
			forgive(t, received.from)
		})
	}
}

// execAll runs commands on the host, one after the other.
func (h *host) execAll(commands string) {
	h.t.Helper()
	for _, command := range strings.Split(commands, " && ") {
		h.Exec(command)
	}
}

// passJiffy waits until the programs look routes up again.
func passJiffy(t *testing.T) {
	t.Helper()
	now := func() (at unix.Timespec) {
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	var step unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &step); err != nil {
		t.Fatal(err)
	}
	begin := now()
	netnstest.Eventually(t, "a jiffy has passed", func() error {
		if at := now(); at.Nano() < begin.Nano()+2*step.Nano() {
			return errors.New("it has not")
		}
		return nil
	})
}

// write sends packets. Errors are those of ICMP about earlier ones.
func write(c net.Conn, n int) {
	for range n {
		_, _ = c.Write([]byte("message"))
	}
}

// forgive takes an error of ICMP away.
func forgive(t *testing.T, c net.Conn) {
	t.Helper()
	control(t, c, func(fd int) error {
		_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return err
	})
}

// arrives waits for the 8 packets of a flow, or until it is sure that none comes.
func arrives(t *testing.T, c net.Conn, wanted bool) {
	t.Helper()
	if !wanted {
		silent(t, c)
		return
	}
	for range 8 {
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
}
