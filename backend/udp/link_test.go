package udp

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
)

// bridged is a data path whose device is a bridge. It carries nothing.
type bridged struct{ dataPath }

func (bridged) deviceName() string { return "flannel0" }

// TestLookAgain has a route in the way of ours that goes, of which nobody tells:
// the clock makes look try again, until it has succeeded.
func TestLookAgain(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Namespace("host")
	p := &plane{
		network: netip.MustParsePrefix("10.5.0.0/16"), own: netip.MustParsePrefix("10.5.1.0/24"),
		uplink: uplink.Uplink{MTU: 1500},
	}
	h.Bridge(bridged{}.deviceName(), netip.PrefixFrom(p.own.Addr(), 32), 1472)
	h.Bridge("other", netip.MustParsePrefix("192.168.1.1/24"), 0)
	h.AddRoute(p.network, netip.Addr{}, "other")
	ours := func() bool {
		l, err := h.Netlink().LinkByName(bridged{}.deviceName())
		if err != nil {
			t.Fatal(err)
		}
		routes, err := h.Netlink().RouteList(l, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		return len(routes) == 1 && routes[0].Dst.String() == p.network.String()
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		looks := make(chan struct{})
		l := &link{netlink: h.Netlink(), network: &network{
			plane: p, path: bridged{}, reconciled: func(time.Duration) { looks <- struct{}{} },
		}}
		changed := make(chan struct{}, 1)
		changed <- struct{}{}
		go l.look(ctx, changed)
		for range 3 {
			<-looks
		}
		if ours() {
			t.Error("the route is there beside the other's")
		}
		h.DelRoute(p.network, netip.Addr{}, "other")
		<-looks
		if !ours() {
			t.Error("the route was not added when it could be")
		}
		time.Sleep(time.Hour) // of the bubble's clock
		select {
		case <-looks:
			t.Error("it looks again with nothing to mend")
		default:
		}
		cancel()
		synctest.Wait()
	})
}
