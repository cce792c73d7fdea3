package netdev

import (
	"fmt"
	"net/netip"

	api "github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Features reads and changes the offload features of devices, by their names in
// "ethtool -k". It works in the network namespace in which it was opened.
type Features struct {
	ethtool *api.Ethtool
	links   *netlink.Handle
}

// OpenFeatures opens sockets for requests, in the network namespace of the calling
// thread.
func OpenFeatures() (*Features, error) {
	e, err := api.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("open socket for ethtool: %w", err)
	}
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	return &Features{e, links}, nil
}

// Close closes the sockets.
func (f *Features) Close() {
	f.ethtool.Close()
	f.links.Close()
}

// Switchable returns the features of a device that can be changed; true is on.
func (f *Features) Switchable(device string) (map[string]bool, error) {
	states, err := f.ethtool.FeaturesWithState(device)
	if err != nil {
		return nil, fmt.Errorf("read offloads of %s: %w", device, err)
	}
	on := make(map[string]bool)
	for name, state := range states {
		if state.Available && !state.NeverChanged {
			on[name] = state.Active
		}
	}
	return on, nil
}

// Switch turns a feature on or off. A feature that needs another one stays off
// until that is on.
func (f *Features) Switch(device, feature string, on bool) error {
	what := "turn off"
	if on {
		what = "turn on"
	}
	if err := f.ethtool.Change(device, map[string]bool{feature: on}); err != nil {
		return fmt.Errorf("%s %s of %s: %w", what, feature, device, err)
	}
	states, err := f.ethtool.FeaturesWithState(device)
	if err != nil {
		return fmt.Errorf("read offloads of %s: %w", device, err)
	}
	if s := states[feature]; s.Requested != on || s.Active && !on {
		return fmt.Errorf("%s %s of %s: the driver does not change it", what, feature, device)
	}
	return nil
}

// RouteDevice returns the device by which the kernel sends to an address.
func (f *Features) RouteDevice(to netip.Addr) (string, error) {
	routes, err := f.links.RouteGet(to.AsSlice())
	if err != nil {
		return "", fmt.Errorf("find route to %v: %w", to, err)
	}
	if len(routes) == 0 {
		return "", fmt.Errorf("find route to %v: there is none", to)
	}
	link, err := f.links.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", fmt.Errorf("find device of the route to %v: %w", to, err)
	}
	return link.Attrs().Name, nil
}
