// Package all knows every backend: its constructor, the kernel state that
// earlier runs left, and its UDP port.
//
//	daemon, cli ─► all ─► alloc, host-gw, udp, vxlan, wireguard
package all

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/alloc"
	"github.com/coreos/flannel/backend/hostgw"
	"github.com/coreos/flannel/backend/udp"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/backend/vxlan"
	"github.com/coreos/flannel/backend/wireguard"
	"github.com/coreos/flannel/pkg/hostroute"
)

// kind is one backend.
type kind struct {
	new func(backend.Config) (backend.Backend, error)
	// remove removes the kernel state that an earlier run left for network; nil
	// if the backend leaves none.
	remove func(ctx context.Context, network netip.Prefix) error
	// port is the default UDP port that peers send to; 0 if there is none.
	port int
	// tunnel is true if one route leads all of Network into the backend's device.
	tunnel bool
	// direct: packets to peers are not encapsulated, and no device has the first address
	// of the subnet.
	direct bool
	// ipv6 is how the backend carries IPv6.
	ipv6 carriage
	// idle: the backend carries no packets. allocates: it allocates memory for each.
	idle, allocates bool
}

// kinds are the backends by the configuration's Backend.Type.
var kinds = map[string]kind{
	"alloc":        {new: alloc.New, ipv6: anyFamily, idle: true},
	hostgw.Type:    {new: hostgw.New, ipv6: sameFamily, remove: hostgw.Remove, direct: true},
	"udp":          {new: udp.New, ipv6: anyFamily, remove: udp.Remove, port: udp.DefaultPort, tunnel: true},
	vxlan.Type:     {new: vxlan.New, ipv6: sameFamily, remove: vxlan.Remove, port: vxlan.DefaultPort},
	wireguard.Type: {new: wireguard.New, ipv6: anyFamily, remove: wireguard.Remove, port: wireguard.DefaultPort, tunnel: true, allocates: true},
}

// New returns the backend of a type. Errors: the type is unknown, or the backend
// refuses the configuration.
func New(name string, c backend.Config) (backend.Backend, error) {
	k, known := kinds[name]
	if !known {
		return nil, fmt.Errorf("Backend.Type %q is not known; known are %s", name, strings.Join(Types(), ", "))
	}
	return k.new(c)
}

// CheckHost returns an error if a backend of a type cannot carry network beside
// the host's own networks.
func CheckHost(name string, network netip.Prefix, have []hostroute.Network) error {
	if kinds[name].tunnel {
		return hostroute.Conflict(have, network)
	}
	return nil
}

// Types returns the known types in order.
func Types() []string { return slices.Sorted(maps.Keys(kinds)) }

// Ports returns the default UDP port of each backend that has one, by type.
func Ports() map[string]int {
	ports := make(map[string]int)
	for name, k := range kinds {
		if k.port != 0 {
			ports[name] = k.port
		}
	}
	return ports
}

// CarriesPackets reports whether a backend carries packets.
func CarriesPackets(name string) bool { return !kinds[name].idle }

// ProbeAddr returns the address of a lease's host that is reached by the path of
// containers' packets, and that the host itself holds.
func ProbeAddr(name string, subnet netip.Prefix, publicIP netip.Addr) netip.Addr {
	if kinds[name].direct {
		return publicIP
	}
	return subnet.Addr()
}

// AllocatesForPackets reports whether a backend may allocate memory for packets.
func AllocatesForPackets(name string) bool { return kinds[name].allocates }

// Remove removes the kernel state that earlier runs of one backend left for
// network. The backend must not run.
func Remove(ctx context.Context, name string, network netip.Prefix) error {
	if remove := kinds[name].remove; remove != nil {
		return remove(ctx, network)
	}
	return nil
}

// RemoveAll calls Remove for each backend but those in except.
func RemoveAll(ctx context.Context, network netip.Prefix, except ...string) error {
	var errs []error
	for _, name := range Types() {
		if !slices.Contains(except, name) {
			errs = append(errs, Remove(ctx, name, network))
		}
	}
	return errors.Join(errs...)
}

// CheckDataPath returns an error if -udp-datapath has no such value.
func CheckDataPath(name string) error { return udp.CheckDataPath(name) }

// ProbeKernelPath returns how the kernel of this host attaches the programs of the
// udp backend's kernel data path, or the reason why it cannot run them. It loads the
// programs and attaches none.
func ProbeKernelPath() (hooks string, err error) { return bpf.Probe() }
