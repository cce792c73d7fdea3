package wireguard

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// The route into the tunnel stays while the next network takes the tunnel over.
func TestSuccessorKeepsTheRoute(t *testing.T) {
	a, _, _ := newSites(t)
	ns, err := netns.GetFromName(a.host.Netns())
	a.check(err)
	defer ns.Close()
	updates, done := make(chan netlink.RouteUpdate), make(chan struct{})
	a.check(netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{Namespace: &ns}))
	defer func() {
		close(done)
		for range updates { // until the subscription has ended
		}
	}()

	kept, err := a.tunnels.Leave()
	a.check(err)
	a.up(kept)
	last := netip.MustParsePrefix("203.0.113.0/24") // so that the test does not wait for nothing
	a.host.AddRoute(last, netip.Addr{}, "lo")
	late := time.After(netnstest.Patience)
	for {
		select {
		case u, ok := <-updates:
			switch {
			case !ok:
				t.Fatal("announcements were lost")
			case u.Dst != nil && u.Dst.String() == last.String():
				return
			case u.Type == unix.RTM_DELROUTE && u.Table == unix.RT_TABLE_MAIN:
				t.Errorf("deleted: %v", u.Route)
			}
		case <-late:
			t.Fatalf("the route to %v is not announced", last)
		}
	}
}
