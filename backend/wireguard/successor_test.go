package wireguard

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
)

// The route into the tunnel stays while the next network takes the tunnel over.
func TestSuccessorKeepsTheRoute(t *testing.T) {
	a, _, _ := newSites(t)
	ns, err := netns.GetFromName(a.host.Netns())
	a.check(err)
	defer ns.Close()
	updates, done := make(chan netlink.RouteUpdate), make(chan struct{})
	a.check(netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{Namespace: &ns}))

	kept, err := a.tunnels.Leave()
	a.check(err)
	a.check(a.host.Do(func() error {
		up, err := backend.UpWith(t.Context(), a.backend, a.lease, kept)
		if err == nil {
			a.tunnels = up.(*tunnels)
			a.network = a.tunnels.networks[0]
		}
		return err
	}))
	last := netip.MustParsePrefix("203.0.113.0/24") // so that the test does not wait for nothing
	a.host.AddRoute(last, netip.Addr{}, "lo")
	for u := range updates {
		if u.Type == unix.RTM_DELROUTE && u.Table == unix.RT_TABLE_MAIN {
			t.Errorf("deleted: %v", u.Route)
		}
		if u.Dst != nil && u.Dst.String() == last.String() {
			break
		}
	}
	close(done)
}
