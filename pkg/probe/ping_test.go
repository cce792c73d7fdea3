package probe

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

func TestPinger(t *testing.T) {
	for _, group := range []string{"1 0", "0 2147483647"} { // a raw socket, a ping socket
		t.Run(group, func(t *testing.T) {
			a, b := hosts(t)
			a.Sysctl("net/ipv4/ping_group_range", group)
			a.AddAddr("lo", host32(ours.Addr()))
			b.AddAddr("lo", host32(theirs.Addr()))
			var p *Pinger
			if err := a.Do(func() (err error) { p, err = Dial(ours.Addr()); return err }); err != nil {
				t.Fatal(err)
			}
			running, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- p.Run(running) }()

			if rtt, err := p.Ping(t.Context(), theirs.Addr(), 1000); err != nil || rtt <= 0 {
				t.Errorf("ping: %v, %v", rtt, err)
			}
			if _, err := p.Ping(t.Context(), theirs.Addr(), 9000); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("ping above the uplink's MTU: %v, want EMSGSIZE", err)
			}
			if size, err := p.Largest(t.Context(), theirs.Addr(), 1600, patience); err != nil || size != 1500 {
				t.Errorf("largest packet: %d, %v; want 1500", size, err)
			}
			silent, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := p.Ping(silent, theirs.Addr().Next(), SmallSize(inet.IPv4)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ping without an answer: %v, want ctx's error", err)
			}
			a.Down(netnstest.Uplink)
			if _, err := p.Ping(t.Context(), theirs.Addr(), SmallSize(inet.IPv4)); !errors.Is(err, unix.ENETUNREACH) {
				t.Errorf("ping without a route: %v, want ENETUNREACH", err)
			}
			stop()
			if err := errors.Join(<-ran, p.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A broadcast address of this host is no source, as the lowest address of a subnet before
// Linux 5.14: the kernel chooses another one.
func TestPingerOfABroadcastAddress(t *testing.T) {
	for _, group := range []string{"1 0", "0 2147483647"} { // as for TestPinger
		t.Run(group, func(t *testing.T) {
			a, b := hosts(t)
			a.Sysctl("net/ipv4/ping_group_range", group)
			a.AddAddr("lo", netip.MustParsePrefix("198.51.100.1/24"))
			b.AddAddr("lo", host32(theirs.Addr()))
			var p *Pinger
			if err := a.Do(func() (err error) { p, err = Dial(netip.MustParseAddr("198.51.100.255")); return err }); err != nil {
				t.Fatal(err)
			}
			running, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- p.Run(running) }()
			limited, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := p.Ping(limited, theirs.Addr(), 1000); err != nil {
				t.Error(err)
			}
			stop()
			if err := errors.Join(<-ran, p.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// An IPv6 source pings by ICMPv6, and finds the largest packet in the same way.
func TestPingerIPv6(t *testing.T) {
	for _, group := range []string{"1 0", "0 2147483647"} { // a raw socket, a ping socket
		t.Run(group, func(t *testing.T) {
			netnstest.Require(t)
			lab := netnstest.New(t)
			a, b := lab.DualHost("a"), lab.DualHost("b")
			a.Sysctl("net/ipv4/ping_group_range", group)
			to := b.IPv6Addr().Addr()
			var p *Pinger
			if err := a.Do(func() (err error) { p, err = Dial(a.IPv6Addr().Addr()); return err }); err != nil {
				t.Fatal(err)
			}
			running, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- p.Run(running) }()
			netnstest.Eventually(t, "ping", func() error {
				limited, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := p.Ping(limited, to, SmallSize(inet.IPv6))
				return err
			})
			if _, err := p.Ping(t.Context(), to, 9000); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("ping above the uplink's MTU: %v, want EMSGSIZE", err)
			}
			if size, err := p.Largest(t.Context(), to, 1600, patience); err != nil || size != 1500 {
				t.Errorf("largest packet: %d, %v; want 1500", size, err)
			}
			stop()
			if err := errors.Join(<-ran, p.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}
