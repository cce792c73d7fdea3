package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/offloadprobe"
	"github.com/coreos/flannel/pkg/offloadrepair"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// offloads probes the offloads on the paths to the peers, and describes the faults.
type offloads struct {
	prober   *offloadprobe.Prober
	repairer *offloadrepair.Repairer // nil without -offload-repair
	stateDir string
	peers    func() []offloadprobe.Peer
	// encapsulation returns that of the network (backend.Network).
	encapsulation func() backend.Encapsulation
	// uplinks are the interfaces to the other hosts, by the family of the containers'
	// packets.
	uplinks [len(inet.Families)]uplink.Uplink

	mu       sync.Mutex       // guards what follows
	features *netdev.Features // nil after close
}

// offloadPeers returns a lease's host as peers to probe, one for each family of its
// subnets. A host without a port runs another flannel, which would not answer. A
// link-local address of IPv6 is none to probe: a lease does not name its interface.
func offloadPeers(c *subnet.Config, l *subnet.Lease) (peers []offloadprobe.Peer) {
	if l.Attrs.OffloadPort == 0 {
		return nil
	}
	for _, part := range l.Parts() {
		addr := all.ProbeAddr(c.BackendType, part, l.Attrs.Addr(inet.Of(part.Addr())))
		if addr.IsValid() && !(addr.Is6() && addr.IsLinkLocalUnicast()) {
			peers = append(peers, offloadprobe.Peer{Subnet: part, Addr: netip.AddrPortFrom(addr, l.Attrs.OffloadPort)})
		}
	}
	return peers
}

// offloadAddrs returns the addresses at which the host of our lease answers in the
// families that it carries.
func offloadAddrs(c *subnet.Config, l *subnet.Lease, inside []inet.Family) (addrs []netip.AddrPort) {
	for _, p := range offloadPeers(c, l) {
		if slices.Contains(inside, inet.Of(p.Subnet.Addr())) {
			addrs = append(addrs, p.Addr)
		}
	}
	return addrs
}

// newOffloads returns offloads that do not probe yet. The caller closes them.
func newOffloads(options *Options, uplinks [len(inet.Families)]uplink.Uplink, encapsulation func() backend.Encapsulation, c offloadprobe.Config) (*offloads, error) {
	features, err := netdev.OpenFeatures()
	if err != nil {
		return nil, err
	}
	o := &offloads{peers: c.Peers, stateDir: options.stateDir, uplinks: uplinks, encapsulation: encapsulation, features: features}
	report := c.Changed
	c.Changed = func(change offloadprobe.Change) {
		report(change)
		if o.repairer != nil {
			o.repairer.Changed()
		}
	}
	c.JoinsTCP = func() bool { return encapsulation() == backend.JoinedByProcess }
	o.prober = offloadprobe.New(c)
	if options.offloadRepair {
		o.repairer = offloadrepair.New(offloadrepair.Config{
			Prober: o.prober, Features: features, Devices: o.devices, StateDir: options.stateDir, Interval: c.Interval,
		})
	}
	return o, nil
}

// endOffloadRepair turns on the switch that a run with -offload-repair has left off.
func endOffloadRepair(stateDir string) {
	features, err := netdev.OpenFeatures()
	if err != nil {
		log.Warningf("turn on a switch of a run with -offload-repair: %v", err)
		return
	}
	defer features.Close()
	restoreSwitch(features, stateDir)
}

// restoreSwitch is endOffloadRepair with open features.
func restoreSwitch(features *netdev.Features, stateDir string) {
	n, err := offloadrepair.Restore(features, stateDir)
	if err != nil {
		log.Warningf("turn on a switch of a run with -offload-repair: %v", err)
	} else if n != nil {
		log.Infof("turn on the switch of a run with -offload-repair command=%q", n.On())
	}
}

// Run probes, and repairs with -offload-repair, until ctx ends. If it fails, the switch
// that was turned off is on again: nothing else would look for the end of the fault.
func (o *offloads) Run(ctx context.Context) error {
	tasks := []task{o.prober.Run}
	if o.repairer != nil {
		tasks = append(tasks, o.repairer.Run)
	}
	err := runTogether(ctx, tasks...)
	if err != nil && o.repairer != nil {
		restoreSwitch(o.features, o.stateDir)
	}
	return err
}

func (o *offloads) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.features.Close()
	o.features = nil
}

// devices returns the devices on the path to a peer.
func (o *offloads) devices(peer netip.Prefix) (offloadrepair.Devices, error) {
	peers := o.peers()
	i := slices.IndexFunc(peers, func(p offloadprobe.Peer) bool { return p.Subnet == peer })
	if i < 0 {
		return offloadrepair.Devices{}, fmt.Errorf("the peer %v has left", peer)
	}
	device, err := o.features.RouteDevice(peers[i].Addr.Addr())
	if err != nil {
		return offloadrepair.Devices{}, err
	}
	up := o.uplinks[inet.Of(peer.Addr())].Name
	d := offloadrepair.Devices{
		Uplink: up, Family: inet.Of(peer.Addr()), Encapsulated: o.encapsulationBy(device, up), Checksummed: netdev.IsVXLAN(device),
	}
	// The kernel data path takes packets off a TUN before the features of the TUN apply.
	if d.Encapsulated == offloadrepair.ByProcess || netdev.IsVXLAN(device) {
		d.Tunnel = device
	}
	return d, nil
}

// encapsulationBy returns how packets that the kernel routes to a device are on the
// uplink. Packets that the kernel encapsulates one by one are Bare: the uplink segments
// nothing inside them.
func (o *offloads) encapsulationBy(device, uplink string) offloadrepair.Encapsulation {
	if device == uplink {
		return offloadrepair.Bare
	}
	switch o.encapsulation() {
	case backend.WholeByKernel:
		return offloadrepair.ByKernel
	case backend.SinglyByProcess, backend.JoinedByProcess:
		return offloadrepair.ByProcess
	}
	return offloadrepair.Bare
}

// describe adds the switch that is off, and the faults to the peers of b.
func (o *offloads) describe(b *status.Backend) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.features == nil {
		return
	}
	if o.repairer != nil {
		if n := o.repairer.Turned(); n != nil {
			b.OffloadSwitch = &status.OffloadSwitch{Device: n.Device, Feature: n.Feature, Layer: string(n.Layer), Since: n.Since}
		}
	}
	results := o.prober.Results()
	known := make(commands)
	for i := range b.Peers {
		p := &b.Peers[i]
		r := results[p.Subnet]
		p.OffloadsChecked = r.Known && !r.Suspect
		for _, f := range []struct {
			offloadprobe.Fault
			direction string
			// here: the switch is this host's.
			here bool
		}{
			{r.Tx, status.ToPeer, !offloadrepair.AtReceiver(r.Tx.Layer)},
			{r.Rx, status.FromPeer, offloadrepair.AtReceiver(r.Rx.Layer)},
		} {
			if f.Layer == "" {
				continue
			}
			p.OffloadFaults = append(p.OffloadFaults, status.OffloadFault{
				Direction: f.direction, Layer: string(f.Layer), Since: f.Since, Effect: effects[f.Layer], Fix: o.fix(p, f.Layer, f.here, b.MTU, known),
			})
		}
	}
}

// familyLayer is a layer of the paths of one family.
type familyLayer struct {
	inet.Family
	offloadprobe.Layer
}

// commands has the commands that turn switches off. The devices of one peer stand for those
// of all of its family.
type commands map[familyLayer]string

// fix returns the remedy of a fault of a peer. here: the switch is this host's. mtu is the
// containers'.
func (o *offloads) fix(p *status.Peer, l offloadprobe.Layer, here bool, mtu int, known commands) string {
	switch {
	case l == offloadprobe.ECN:
		return ecnRemedy
	case !here:
		return fmt.Sprintf("sudo flannel doctor, on %v", p.PublicIP)
	case l == offloadprobe.PathMTU:
		return o.lowerMTU(p, mtu)
	}
	key := familyLayer{inet.Of(p.Subnet.Addr()), l}
	if known[key] == "" {
		known[key] = o.command(l, p.Subnet)
	}
	return known[key]
}

// command returns the command that turns off the first switch that may end a fault.
func (o *offloads) command(l offloadprobe.Layer, peer netip.Prefix) string {
	d, err := o.devices(peer)
	var candidates []offloadrepair.Switch
	if err == nil {
		candidates, err = offloadrepair.Candidates(o.features, l, d)
	}
	if err == nil && len(candidates) == 0 {
		err = errors.New("no switch is left that may end the fault: replace the driver, or its firmware")
	}
	if err != nil {
		return fmt.Sprintf("ethtool -k %s (%v)", o.uplinks[inet.Of(peer.Addr())].Name, err)
	}
	return candidates[0].Off()
}

// lowerMTU returns the command that makes containers' packets as short as those that
// reach a peer. full is the size of the longest packet.
func (o *offloads) lowerMTU(p *status.Peer, full int) string {
	const raise = "raise the MTU of the path, or "
	if p.Probe == nil || p.Probe.MTU == 0 || p.Probe.MTU >= full {
		return raise + "lower that of the uplink; flannel doctor has the sizes"
	}
	up := o.uplinks[inet.Of(p.Subnet.Addr())]
	return fmt.Sprintf(raise+"ip link set %s mtu %d", up.Name, up.MTU-(full-p.Probe.MTU))
}

// effects has the packets that a fault of each layer loses.
var effects = map[offloadprobe.Layer]string{
	offloadprobe.Checksum:        "packets whose checksum is left to the device are lost",
	offloadprobe.Segmentation:    "super-packets, which the device segments, are lost",
	offloadprobe.TCPSegmentation: "super-packets of TCP, which the device segments, are lost",
	offloadprobe.UDPSegmentation: "super-packets of UDP, which the device segments, are lost",
	offloadprobe.ReceiveMerging:  "packets that the receiver merges are lost",
	offloadprobe.PathMTU:         "packets of the containers' MTU are lost",
	offloadprobe.ECN:             "packets with an ECN codepoint are lost, or lose the codepoint",
}

// ecnRemedy is what to do about a path that treats ECN wrongly: no switch of a device ends
// that.
const ecnRemedy = "remove the rule on the path that drops or clears ECN, or: sysctl -w net.ipv4.tcp_ecn=0 in the containers"
