package probe

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
			if _, err := p.Ping(silent, theirs.Addr().Next(), SmallSize); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ping without an answer: %v, want ctx's error", err)
			}
			a.Down(netnstest.Uplink)
			if _, err := p.Ping(t.Context(), theirs.Addr(), SmallSize); !errors.Is(err, unix.ENETUNREACH) {
				t.Errorf("ping without a route: %v, want ENETUNREACH", err)
			}
			stop()
			if err := errors.Join(<-ran, p.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}
