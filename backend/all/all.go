// Package all knows every backend: how one is made, what earlier runs leave in
// the kernel, and which port other hosts send to.
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
	"github.com/coreos/flannel/backend/vxlan"
	"github.com/coreos/flannel/backend/wireguard"
)

// kind is one backend.
type kind struct {
	new func(backend.Config) (backend.Backend, error)
	// remove removes what an earlier run of the backend for network left in the
	// kernel; nil where nothing outlives the process.
	remove func(ctx context.Context, network netip.Prefix) error
	// port is the UDP port that other hosts send to by default; 0 without one.
	port int
}

// kinds are the backends by the value of the configuration's Backend.Type.
var kinds = map[string]kind{
	"alloc":        {new: alloc.New},
	hostgw.Type:    {new: hostgw.New, remove: hostgw.Remove},
	"udp":          {udp.New, udp.Remove, udp.DefaultPort},
	vxlan.Type:     {vxlan.New, vxlan.Remove, vxlan.DefaultPort},
	wireguard.Type: {wireguard.New, wireguard.Remove, wireguard.DefaultPort},
}

// New makes the backend of that type. Errors: the type is unknown, or the
// backend refuses the configuration.
func New(name string, c backend.Config) (backend.Backend, error) {
	k, known := kinds[name]
	if !known {
		return nil, fmt.Errorf("Backend.Type %q is not known; known are %s", name, strings.Join(Types(), ", "))
	}
	return k.new(c)
}

// Types returns the known types in order.
func Types() []string { return slices.Sorted(maps.Keys(kinds)) }

// Remove removes what earlier runs of one backend left in the kernel for
// network. The backend must not run.
func Remove(ctx context.Context, name string, network netip.Prefix) error {
	if remove := kinds[name].remove; remove != nil {
		return remove(ctx, network)
	}
	return nil
}

// RemoveAll removes what earlier runs of all backends but those of the types in
// except left in the kernel for network.
func RemoveAll(ctx context.Context, network netip.Prefix, except ...string) error {
	var errs []error
	for _, name := range Types() {
		if !slices.Contains(except, name) {
			errs = append(errs, Remove(ctx, name, network))
		}
	}
	return errors.Join(errs...)
}

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

// CheckDataPath refuses a name that -udp-datapath does not know.
func CheckDataPath(name string) error { return udp.CheckDataPath(name) }
