package rtnl

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
)

// The blackhole for the own subnet is kept beside the routes to peers, which another
// Reconciler keeps. Of the other blackholes, those of earlier runs go.
func TestKeepBlackhole(t *testing.T) {
	b := newBench(t)
	blackhole := func(dst string, metric uint32) Route {
		return Route{Dst: netip.MustParsePrefix(dst), Metric: metric, Kind: Blackhole}
	}
	own, elsewhere := blackhole("10.5.255.0/24", math.MaxUint32), blackhole("10.6.0.0/24", 0)
	b.ip("route add blackhole 10.5.254.0/24 metric 4294967295 proto 85") // of an earlier subnet
	b.ip("route add blackhole 10.6.0.0/24 proto 85")                     // in another network
	b.ip("route add blackhole 10.5.253.0/24")                            // of another program
	k := b.reconciler(config())
	b.exchange(k, State{}, peers(1, 3))
	b.check(pass(k))
	b.run(k)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- b.host.Do(func() error { return KeepBlackhole(ctx, network, own.Dst) })
	}()
	expect := func(ours ...Route) {
		t.Helper()
		eventually(t, func() error {
			if have := b.ip("route show type blackhole"); !strings.Contains(have, "10.5.253.0/24") {
				return errors.New("another program's blackhole is gone")
			}
			return b.difference(join(peers(1, 3), State{Routes: append(ours, elsewhere)}))
		})
	}
	expect(own)
	b.ip("route del blackhole 10.5.255.0/24 metric 4294967295")
	expect(own)
	b.ip("route del " + peers(1, 3).Routes[0].Dst.String()) // causes a pass of both
	expect(own)
	cancel()
	b.check(<-ended)
	expect(own)
	b.check(b.host.Do(func() error { return RemoveBlackholes(network) }))
	expect()
}
