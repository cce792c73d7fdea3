package cli

import (
	"context"
	"net/netip"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/probe"
)

// echoAddrs returns the addresses of a subnet that may answer pings: the first
// is flannel's device, the second the container bridge.
func echoAddrs(s netip.Prefix) []netip.Addr {
	if s.IsSingleIP() {
		return []netip.Addr{s.Addr()}
	}
	return []netip.Addr{s.Addr(), s.Addr().Next()}
}

// firstReply pings all addresses at once and returns the first reply, or an
// error if there is none.
func firstReply(ctx context.Context, p *probe.Pinger, addrs []netip.Addr) (from netip.Addr, rtt time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type reply struct {
		from netip.Addr
		rtt  time.Duration
		err  error
	}
	replies := make(chan reply, len(addrs))
	for _, addr := range addrs {
		go func() {
			rtt, err := p.Ping(ctx, addr, probe.SmallSize(inet.Of(addr)))
			replies <- reply{addr, rtt, err}
		}()
	}
	var first reply
	for i := range addrs { // all of them, so that no goroutine outlives the call
		if got := <-replies; i == 0 || first.err != nil && got.err == nil {
			if first = got; got.err == nil {
				cancel() // ends the other pings
			}
		}
	}
	return first.from, first.rtt, first.err
}
