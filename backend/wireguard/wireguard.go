// Package wireguard is the backend that encrypts: packets between hosts travel
// through WireGuard tunnels (https://www.wireguard.com/papers/wireguard.pdf).
//
//	container → bridge → route Network dev flannel-wg ─► WireGuard ─► UDP :51820
//	                     route Network prohibit (when the former is away)
//
// Each host makes a key of its own and tells the public half in its lease; the
// peer's subnet is the range of addresses that its key may use. The kernel's
// implementation is used where there is one, else wireguard-go inside this
// process.
//
// It fails closed. The prohibit route is there before the tunnel is, and stays
// when the daemon stops or dies: a packet that finds no tunnel is answered with
// an ICMP error and never leaves in clear text. Only another backend's start
// takes the route away.
package wireguard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// Type is the value of the configuration's Backend.Type.
const Type = "wireguard"

// deviceName is that of all generations.
const deviceName = netdev.WireGuard

// leaseData is the lease's BackendData.
type leaseData struct {
	PublicKey string
	Port      int
}

// New checks the options and reads the private key, or makes it.
func New(c backend.Config) (backend.Backend, error) {
	o, err := parseOptions(c)
	if err != nil {
		return nil, err
	}
	key, err := loadKey(c.RunDir)
	if err != nil {
		return nil, err
	}
	return &guard{c, o, key}, nil
}

// guard is the backend before it has a lease.
type guard struct {
	config  backend.Config
	options options
	key     wgtypes.Key
}

func (g *guard) Attrs() subnet.Attrs { return attrs(g.config, g.options, g.key) }

// attrs is what peers must know of the host with that private key. The data
// always encodes: it is a string and a number.
func attrs(c backend.Config, o options, key wgtypes.Key) subnet.Attrs {
	data, _ := json.Marshal(leaseData{key.PublicKey().String(), o.ListenPort})
	return subnet.Attrs{PublicIP: c.PublicIP, BackendType: Type, BackendData: data}
}

// Up leaves the prohibit route in place even where it fails.
func (g *guard) Up(_ context.Context, l subnet.Lease) (_ backend.Network, err error) {
	n := &network{
		config: g.config, options: g.options, mtu: g.options.MTU - encapsulation,
		address: netip.PrefixFrom(l.Subnet.Addr(), l.Subnet.Addr().BitLen()),
		key:     g.key, greeter: newGreeter(), peers: make(map[netip.Prefix]*peer), retiring: make(map[wgtypes.Key]wgtypes.Key),
	}
	var closers []io.Closer
	defer func() {
		for _, c := range closers {
			if err != nil {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	if n.claim, err = netdev.Lock(deviceName); err != nil {
		return nil, fmt.Errorf("%w: a host has one network with backend %s", err, Type)
	}
	closers = append(closers, n.claim)
	if n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	closers = append(closers, handle{n.links})
	n.keeper, err = rtnl.New(rtnl.Config{Network: g.config.Network, Device: deviceName, Uplink: g.config.Uplink.Name, Prepare: n.prepare, Passed: g.config.Reconciled})
	if err != nil {
		return nil, err
	}
	closers = append(closers, n.keeper)
	if err := n.failClosed(); err != nil {
		return nil, err
	}
	closers = append(closers, tunnelOf{n})
	if err := n.openUp(); err != nil {
		return nil, err
	}
	return n, nil
}

// Remove deletes what an earlier run for network has left: the kernel's
// device, unless a running flannel has it, and the prohibit route.
func Remove(ctx context.Context, network netip.Prefix) error {
	return errors.Join(
		removeDevice(network),
		rtnl.RemoveRoutes(ctx, network, func(r rtnl.Route) bool { return r.Kind == rtnl.Prohibit }))
}

func removeDevice(network netip.Prefix) (err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(deviceName)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up device %s: %w", deviceName, err)
	}
	if within, err := rtnl.Within(h, link, network); err != nil || !within || link.Type() != "wireguard" {
		return err
	}
	claim, err := netdev.Lock(deviceName)
	if errors.Is(err, netdev.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, claim.Close()) }()
	log.Infof("remove device of an earlier run device=%s", deviceName)
	if err := h.LinkDel(link); err != nil {
		return fmt.Errorf("delete device %s: %w", deviceName, err)
	}
	return nil
}
