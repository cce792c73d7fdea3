// Package vxlan is the backend that lets the kernel carry packets in VXLAN
// frames (RFC 7348), over any network between the hosts.
//
//	container → bridge → route 10.5.3.0/24 via 10.5.3.0 dev flannel.1
//	                       neighbour 10.5.3.0 = MAC of the peer's flannel.1
//	                         forwarding entry MAC → host 192.0.2.3 ─► UDP :8472
//
// IPv6 has a device of its own, flannel-v6.<VNI>, whose datagrams are of IPv6, too.
// Both families share the VNI and the port number.
//
// Glossary: a VTEP is the tunnel's end on a host, the device flannel.<VNI>. Its MAC
// is that of the lease in the store, if the store keeps leases of hosts that are
// down. Else it is that of a device that an earlier run or another release of flannel
// has left, which peers know. Else it follows from the host's node id, so it is the same
// after a reboot. There are no broadcasts: each peer's lease has all that the kernel needs.
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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/nodeid"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// Type is the value of the configuration's Backend.Type.
const Type = "vxlan"

// leaseData is the lease's BackendData, or BackendV6Data. VNI is absent if an old
// generation of flannel wrote it.
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
	v := &vtep{config: c, options: o}
	for _, f := range c.Inside() {
		if v.macs[f], err = chooseMAC(c.Previous.Data(f), nameOf(o.VNI, f), macOf(id, f)); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// salts make the MACs of a host's devices differ, and differ from other ids that
// follow from the node id.
var salts = [...]string{inet.IPv4: "flannel vtep ", inet.IPv6: "flannel vtep v6 "}

// macOf is a locally administered unicast address (IEEE 802, bits 1 and 0 of
// the first byte).
func macOf(id nodeid.ID, f inet.Family) rtnl.MAC {
	sum := sha256.Sum256(append([]byte(salts[f]), id[:]...))
	mac := rtnl.MAC(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// nameOf returns the name of the device that carries a family.
func nameOf(vni uint32, f inet.Family) string {
	if f == inet.IPv4 {
		return netdev.VXLAN(vni)
	}
	return netdev.VXLANIPv6(vni)
}

// macIn returns the MAC of an earlier lease of this host; ok is false if data has
// none.
func macIn(data json.RawMessage) (mac rtnl.MAC, ok bool) {
	var d leaseData
	if json.Unmarshal(data, &d) != nil {
		return mac, false
	}
	mac, err := parseMAC(d.VtepMAC)
	return mac, err == nil
}

// chooseMAC returns the MAC of the device of that name: that of the previous lease, or
// that of a device that exists, or else derived. A device that gets another MAC loses
// packets until the peers know it.
func chooseMAC(previous json.RawMessage, device string, derived rtnl.MAC) (rtnl.MAC, error) {
	if mac, ok := macIn(previous); ok { // promise: known-mac-stays
		return mac, nil
	}
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return derived, fmt.Errorf("open route netlink: %w", err)
	}
	defer links.Close()
	link, err := rtnl.FindLink(links, device)
	if err != nil {
		return derived, err
	}
	if vxlan, ok := link.(*netlink.Vxlan); ok {
		if mac, err := parseMAC(vxlan.HardwareAddr.String()); err == nil { // promise: mac-of-device-stays
			return mac, nil
		}
	}
	return derived, nil
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
	macs    [len(inet.Families)]rtnl.MAC // of each family's device
}

// Attrs implements backend.Backend. The data always encode: they are a number and a
// string.
func (v *vtep) Attrs() subnet.Attrs {
	a := subnet.Attrs{BackendType: Type}
	for _, f := range v.config.Inside() {
		data, _ := json.Marshal(leaseData{VNI: &v.options.VNI, VtepMAC: v.macs[f].String()})
		a.SetFamily(f, v.config.Of(f).PublicIP, data)
	}
	return a
}

// Up implements backend.Backend. If the kernel refuses the device of one family only,
// Run tries again.
func (v *vtep) Up(ctx context.Context, l subnet.Lease) (_ backend.Network, err error) {
	parts := make(map[inet.Family]backend.Network)
	defer func() {
		if err != nil {
			for _, p := range parts {
				err = errors.Join(err, p.Close())
			}
		}
	}()
	var devices []*device
	for _, f := range v.config.Inside() {
		n, err := v.open(f, l)
		if n != nil {
			parts[f] = n
		}
		if err != nil {
			return nil, err
		}
		devices = append(devices, n.device)
	}
	return backend.Join(parts), ensureAny(devices)
}

// ensureAny makes the devices. It returns an error if no device is as it should be,
// and then removes what it made.
func ensureAny(devices []*device) error {
	var errs []error
	for _, d := range devices {
		errs = append(errs, d.ensure())
	}
	err := backend.AllFailed(errs)
	if err == nil {
		return nil
	}
	for _, d := range devices {
		err = errors.Join(err, d.removeMade())
	}
	return err
}

// open returns the network of one family, without its device. With an error the caller
// closes the network, if there is one.
func (v *vtep) open(f inet.Family, l subnet.Lease) (*network, error) {
	own, s := l.SubnetOf(f), v.config.Of(f)
	if err := v.config.CheckUnderlay("subnet", own); err != nil {
		return nil, err
	}
	d := &device{
		family: f, name: nameOf(v.options.VNI, f), uplink: s.Uplink.Name, local: s.Uplink.Addr,
		address: netip.PrefixFrom(own.Addr(), f.Bits()),
		mac:     v.macs[f], mtu: v.options.mtu(f, s), options: v.options,
	}
	lock, err := netdev.Lock(d.name)
	if err != nil {
		return nil, fmt.Errorf("%w: networks on one host need a Backend.VNI each", err)
	}
	n := &network{options: v.options, device: d, lock: lock, peers: make(map[netip.Prefix]*peer), macs: make(holders)}
	// The device of this VNI is locked, so this removes those of others.
	if err := removeDevices(s.Network); err != nil {
		return n, err
	}
	n.reconciler, err = rtnl.New(rtnl.Config{Network: s.Network, Device: d.name, DeviceTypes: []string{"vxlan"}, Uplink: d.uplink, Prepare: n.prepare, Passed: v.config.Reconciled})
	d.reconciler = n.reconciler
	return n, err
}

// Remove deletes what an earlier run left for network: the device, which its routes
// go with, and direct routes.
func Remove(_ context.Context, network netip.Prefix) error {
	return errors.Join(removeDevices(network), rtnl.RemoveRoutes(network, rtnl.OnLink))
}

func removeDevices(network netip.Prefix) error {
	return rtnl.RemoveDevices(network, Type, netdev.IsVXLAN)
}
