package udp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/pkg/uplink"
)

// wired is a data path whose device is a veth. It carries nothing.
type wired struct{}

func (wired) name() string       { return plainName }
func (wired) deviceName() string { return "flannel0" }
func (wired) detail() string     { return "" }
func (wired) close() error       { return nil }

func (wired) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// rig is a network with a veth for a device, on a host of its own.
type rig struct {
	*testing.T
	host    *netnstest.Host
	network *network
}

func newRig(t *testing.T) *rig {
	t.Helper()
	netnstest.Require(t)
	r := &rig{T: t, host: netnstest.New(t).Namespace("host")}
	r.network = &network{
		pathConfig: &pathConfig{
			tableConfig: tableConfig{
				Config: backend.Config{Network: netip.MustParsePrefix("10.5.0.0/16"), Uplink: uplink.Uplink{MTU: 1500}},
				own:    [2]netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}, outer: []inet.Family{inet.IPv4},
			},
			table: testTable(), links: r.host.Netlink(),
		},
		path: wired{},
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = wired{}.deviceName()
	r.check(r.host.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "end"}))
	r.host.Up("end")
	r.host.Up(attrs.Name)
	r.host.AddAddr(attrs.Name, netip.MustParsePrefix("10.5.9.0/32")) // of an earlier lease
	t.Cleanup(func() { r.check(r.network.Close()) })
	return r
}

func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) open() error {
	return r.host.Do(func() error { return errors.Join(r.network.openRoutes(), r.network.openDevice()) })
}

// run runs the network until the test ends.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.network.Run(ctx) }()
	r.Cleanup(func() {
		cancel()
		r.check(<-ended)
	})
}

// protocols are those of the routes by the device.
func (r *rig) protocols() (all []int) {
	r.Helper()
	link, err := r.host.Netlink().LinkByName(wired{}.deviceName())
	r.check(err)
	routes, err := r.host.Netlink().RouteListFiltered(unix.AF_INET, &netlink.Route{LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	r.check(err)
	for _, route := range routes {
		if route.Dst.String() != r.network.pathConfig.Network.String() || route.Scope != netlink.SCOPE_LINK {
			r.Errorf("route %v", route)
		}
		all = append(all, int(route.Protocol))
	}
	return all
}

// hasRoute reports whether our route is there, alone.
func (r *rig) hasRoute() bool {
	r.Helper()
	all := r.protocols()
	return len(all) == 1 && all[0] == rtnl.Protocol
}

// eventually polls until cond holds.
func (r *rig) eventually(what string, cond func() bool) {
	r.Helper()
	netnstest.Eventually(r, what, func() error {
		if !cond() {
			return errors.New("it does not hold")
		}
		return nil
	})
}

func TestRouteHasOurProtocol(t *testing.T) {
	r := newRig(t)
	r.check(r.open())
	if !r.hasRoute() {
		t.Errorf("routes by the device have protocols %v, want one with %d", r.protocols(), rtnl.Protocol)
	}
	r.check(r.network.Check())
}

// An older release made the route with protocol boot.
func TestRouteOfAnOlderReleaseIsTakenOver(t *testing.T) {
	r := newRig(t)
	r.host.AddRoute(r.network.pathConfig.Network, netip.Addr{}, wired{}.deviceName())
	if all := r.protocols(); len(all) != 1 || all[0] != unix.RTPROT_BOOT {
		t.Fatalf("the test's route has protocols %v", all)
	}
	r.check(r.open())
	if !r.hasRoute() {
		t.Errorf("routes by the device have protocols %v, want one with %d", r.protocols(), rtnl.Protocol)
	}
}

// A network that another device has is refused at the start.
func TestNetworkOfAnotherDevice(t *testing.T) {
	r := newRig(t)
	r.host.Bridge("other", netip.MustParsePrefix("192.168.1.1/24"), 0)
	r.host.AddRoute(r.network.pathConfig.Network, netip.Addr{}, "other")
	err := r.open()
	if !errors.Is(err, rtnl.ErrForeign) || !strings.Contains(err.Error(), "another device has this network (see: ip route show 10.5.0.0/16)") {
		t.Errorf("error %v", err)
	}
}

// Another program's route takes the place of ours, and goes with its interface,
// of which the kernel announces the interface only. Then ours comes back.
func TestRouteComesBack(t *testing.T) {
	r := newRig(t)
	r.check(r.open())
	r.run()
	r.host.Bridge("other", netip.MustParsePrefix("192.168.1.1/24"), 0)
	other, err := r.host.Netlink().LinkByName("other")
	r.check(err)
	r.check(r.host.Netlink().RouteReplace(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 5, 0, 0), Mask: net.CIDRMask(16, 32)}, LinkIndex: other.Attrs().Index, Scope: netlink.SCOPE_LINK}))
	r.eventually("the route is missed", func() bool { return r.network.Check() != nil && len(r.network.reconcilers[inet.IPv4].Refusals()) == 1 })
	if len(r.protocols()) != 0 {
		t.Error("our route is there beside the other's")
	}
	r.check(r.host.Netlink().LinkDel(other))
	r.eventually("the route comes back", r.hasRoute)
	r.eventually("nothing differs", func() bool { return r.network.Check() == nil })
}

// A device that was deleted cannot be made again.
func TestDeviceIsGone(t *testing.T) {
	r := newRig(t)
	r.check(r.open())
	link, err := r.host.Netlink().LinkByName(wired{}.deviceName())
	r.check(err)
	r.check(r.host.Netlink().LinkDel(link))
	if err := r.network.Run(t.Context()); !errors.Is(err, backend.ErrGone) {
		t.Errorf("Run: %v, want ErrGone", err)
	}
}
