// Package vxlan is the backend that lets the kernel carry packets in VXLAN
// frames (RFC 7348), over any network between the hosts.
//
//	container → bridge → route 10.5.3.0/24 via 10.5.3.0 dev flannel.1
//	                       neighbour 10.5.3.0 = MAC of the peer's flannel.1
//	                         forwarding entry MAC → host 192.0.2.3 ─► UDP :8472
//
// Glossary: a VTEP is the tunnel's end on a host, the device flannel.<VNI>. Its MAC
// follows from the host's node id, and so stays the same when the device is made
// again. There are no broadcasts: each peer's lease has all that the kernel needs.
// The kernel carries packets on while the daemon does not run.
package vxlan

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/nodeid"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// Type is the value of the configuration's Backend.Type.
const Type = "vxlan"

// leaseData is the lease's BackendData. VNI is absent if an old generation of
// flannel wrote it.
type leaseData struct {
	VNI     *uint32 `json:",omitempty"`
	VtepMAC string
}

// New checks the options, and reads the node id or creates it.
func New(c backend.Config) (backend.Backend, error) {
	o, err := parseOptions(c)
	if err != nil {
		return nil, err
	}
	id, err := nodeid.Load(c.StateDir)
	if err != nil {
		return nil, err
	}
	mac := macOf(id)
	data, err := json.Marshal(leaseData{VNI: &o.VNI, VtepMAC: mac.String()})
	if err != nil {
		return nil, fmt.Errorf("encode lease data: %w", err)
	}
	return &vtep{config: c, options: o, mac: mac, data: data}, nil
}

// macOf is a locally administered unicast address (IEEE 802, bits 1 and 0 of
// the first byte).
func macOf(id nodeid.ID) rtnl.MAC {
	sum := sha256.Sum256(append([]byte("flannel vtep "), id[:]...))
	mac := rtnl.MAC(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

func parseMAC(s string) (rtnl.MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 || hw[0]&1 != 0 {
		return rtnl.MAC{}, fmt.Errorf("VtepMAC %q is not the Ethernet address of a host", s)
	}
	return rtnl.MAC(hw), nil
}

// vtep is the backend before it has a lease.
type vtep struct {
	config  backend.Config
	options options
	mac     rtnl.MAC
	data    json.RawMessage
}

// Attrs implements backend.Backend.
func (v *vtep) Attrs() subnet.Attrs {
	return subnet.Attrs{PublicIP: v.config.PublicIP, BackendType: Type, BackendData: v.data}
}

// Up implements backend.Backend.
func (v *vtep) Up(ctx context.Context, l subnet.Lease) (_ backend.Network, err error) {
	if err := v.config.CheckUnderlay("subnet", l.Subnet); err != nil {
		return nil, err
	}
	d := &device{
		name: netdev.VXLAN(v.options.VNI), uplink: v.config.Uplink.Name, local: v.config.Uplink.Addr,
		address: netip.PrefixFrom(l.Subnet.Addr(), l.Subnet.Addr().BitLen()),
		mac:     v.mac, mtu: v.options.MTU - encapsulation, options: v.options,
	}
	lock, err := netdev.Lock(d.name)
	if err != nil {
		return nil, fmt.Errorf("%w: networks on one host need a Backend.VNI each", err)
	}
	n := &network{options: v.options, device: d, lock: lock, peers: make(map[netip.Prefix]*peer), macs: make(holders)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	// The device of this VNI is locked, so this removes those of others.
	if err := removeDevices(v.config.Network); err != nil {
		return nil, err
	}
	n.reconciler, err = rtnl.New(rtnl.Config{Network: v.config.Network, Device: d.name, DeviceTypes: []string{"vxlan"}, Uplink: d.uplink, Prepare: n.prepare, Passed: v.config.Reconciled})
	if err != nil {
		return nil, err
	}
	d.reconciler = n.reconciler
	if err := d.ensure(); err != nil {
		return nil, errors.Join(err, d.removeMade())
	}
	return n, nil
}

// Remove deletes what an earlier run left for network: the device, which its routes
// go with, and direct routes.
func Remove(_ context.Context, network netip.Prefix) error {
	return errors.Join(removeDevices(network), rtnl.RemoveRoutes(network, rtnl.OnLink))
}

func removeDevices(network netip.Prefix) error {
	return rtnl.RemoveDevices(network, Type, netdev.IsVXLAN)
}
