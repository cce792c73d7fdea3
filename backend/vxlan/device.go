package vxlan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// device is flannel.<VNI> or flannel-v6.<VNI> as it should be.
type device struct {
	family       inet.Family
	name, uplink string
	local        netip.Addr // source address of the datagrams
	address      netip.Prefix
	mac          rtnl.MAC
	mtu          int
	options      options

	reconciler *rtnl.Reconciler
	made       bool // by this run
	// offloadOf is the index of the device that setOffload has served.
	offloadOf int
}

// ensure makes the device as it should be. It changes nothing that is so already.
// It replaces the device only if a difference cannot be changed on it: packets in
// flight would be lost.
func (d *device) ensure() error {
	uplink, err := d.reconciler.Links.LinkByName(d.uplink)
	if err != nil {
		return fmt.Errorf("look up interface %s: %w", d.uplink, err)
	}
	link, err := d.get(d.spec(uplink.Attrs().Index))
	if err != nil {
		return err
	}
	if err := d.setMAC(link); err != nil {
		return err
	}
	if err := d.setOffload(link); err != nil {
		return err
	}
	if err := d.reconciler.EnsureUp(link, d.address, d.mtu); err != nil {
		return d.explainUp(err, uplink.Attrs().MTU)
	}
	return nil
}

// spec describes the device, with what cannot be changed once it exists.
func (d *device) spec(uplink int) *netlink.Vxlan {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = d.name
	attrs.MTU = d.mtu
	attrs.HardwareAddr = net.HardwareAddr(d.mac[:])
	return &netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(d.options.VNI), VtepDevIndex: uplink, SrcAddr: d.local.AsSlice(),
		Port: d.options.Port, Learning: d.options.Learning, GBP: d.options.GBP,
	}
}

// check returns an error if the device is not as ensure makes it.
func (d *device) check() error {
	if err := rtnl.CheckUp(d.reconciler.Links, d.name, d.address, d.mtu); err != nil {
		return err
	}
	link, err := d.reconciler.Links.LinkByName(d.name)
	if err != nil {
		return fmt.Errorf("look up device %s: %w", d.name, err)
	}
	if have := link.Attrs().HardwareAddr.String(); have != d.mac.String() {
		return fmt.Errorf("device %s has MAC %s, must have %v", d.name, have, d.mac)
	}
	return nil
}

// get returns the device. It adds it if there is none, and replaces it if it
// differs from want.
func (d *device) get(want *netlink.Vxlan) (netlink.Link, error) {
	have, err := rtnl.FindLink(d.reconciler.Links, d.name)
	if err != nil {
		return nil, err
	}
	if have != nil {
		vxlan, ok := have.(*netlink.Vxlan)
		if !ok {
			return nil, fmt.Errorf("interface %s exists and is of type %s, not vxlan: delete or rename it", d.name, have.Type())
		}
		differs := difference(vxlan, want)
		if differs == "" {
			return have, nil
		}
		log.Infof("replace device=%s reason=%q", d.name, differs)
		if err := d.reconciler.Links.LinkDel(have); err != nil {
			return nil, fmt.Errorf("delete device %s: %w", d.name, err)
		}
	}
	if err := d.reconciler.Links.LinkAdd(want); err != nil {
		return nil, fmt.Errorf("add device %s: %w", d.name, explain(err, d.options))
	}
	d.made = true
	made, err := d.reconciler.Links.LinkByName(d.name)
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", d.name, err)
	}
	log.Infof("made device=%s vni=%d port=%d mac=%v mtu=%d", d.name, d.options.VNI, d.options.Port, d.mac, d.mtu)
	return made, nil
}

// difference describes the first difference between have and want that cannot be
// changed; "" if there is none.
func difference(have, want *netlink.Vxlan) string {
	for _, part := range []struct {
		name       string
		have, want any
	}{
		{"VNI", have.VxlanId, want.VxlanId},
		{"interface", have.VtepDevIndex, want.VtepDevIndex},
		{"local address", have.SrcAddr.String(), want.SrcAddr.String()},
		{"group", len(have.Group), len(want.Group)},
		{"port", have.Port, want.Port},
		{"learning", have.Learning, want.Learning},
		{"GBP", have.GBP, want.GBP},
		{"external control", have.FlowBased, want.FlowBased},
	} {
		if part.have != part.want {
			return fmt.Sprintf("its %s is %v, must be %v", part.name, part.have, part.want)
		}
	}
	return ""
}

// explain adds the remedy to the usual failures to add the device.
func explain(err error, o options) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: this kernel has no VXLAN; load it with \"modprobe vxlan\"", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: another device has VNI %d on port %d; choose another Backend.VNI", err, o.VNI, o.Port)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: another program listens on UDP port %d; choose another Backend.Port", err, o.Port)
	}
	return netdev.ExplainPermission(err)
}

func (d *device) setMAC(l netlink.Link) error {
	if have := l.Attrs().HardwareAddr.String(); have != d.mac.String() {
		log.Infof("set MAC device=%s from=%s to=%v", d.name, have, d.mac)
		if err := d.reconciler.Links.LinkSetHardwareAddr(l, net.HardwareAddr(d.mac[:])); err != nil {
			return fmt.Errorf("set MAC of %s to %v: %w", d.name, d.mac, err)
		}
	}
	return nil
}

// setOffload works around checksumFault, once for each device. Datagrams of IPv6 have
// a checksum.
func (d *device) setOffload(l netlink.Link) error {
	if d.family == inet.IPv6 || d.offloadOf == l.Attrs().Index {
		return nil
	}
	faulty, err := checksumFault()
	if err != nil {
		return err
	}
	if faulty {
		log.Infof("turn off checksum offload device=%s reason=%q", d.name, "this kernel corrupts checksums of translated VXLAN packets")
		if err := netdev.DisableTxChecksum(d.name); err != nil {
			return err
		}
	}
	d.offloadOf = l.Attrs().Index
	return nil
}

// linkPrefixes returns the networks of the uplink's addresses, sorted.
func (d *device) linkPrefixes() ([]netip.Prefix, error) {
	uplink, err := d.reconciler.Links.LinkByName(d.uplink)
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", d.uplink, err)
	}
	addrs, err := rtnl.Addrs(d.reconciler.Links, uplink, d.family)
	for i := range addrs {
		addrs[i] = addrs[i].Masked()
	}
	return addrs, err
}
