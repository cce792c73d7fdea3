package fastpath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/pinned"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/pkg/tchook"
)

// linkInspector finds the parts of an interface that packets of the fast path pass by: a
// shaper, a filter, a program of others, or a closed port.
type linkInspector struct {
	links    *netlink.Handle
	closed   map[int]string
	screened map[int]bool // see screenedPorts
	qdiscs   map[int][]netlink.Qdisc
	owner    int  // of our filters
	filters  bool // the kernel has no tcx
	ours     []ebpf.ProgramID
}

func (p *Path) newLinkInspector() (*linkInspector, error) {
	all, err := rtnl.RetryDump("qdiscs", func() ([]netlink.Qdisc, error) { return p.links.QdiscList(nil) })
	if err != nil {
		return nil, err
	}
	l := &linkInspector{links: p.links, qdiscs: make(map[int][]netlink.Qdisc), owner: p.config.owner(), filters: p.programs.filters}
	for _, q := range all {
		index := q.Attrs().LinkIndex
		l.qdiscs[index] = append(l.qdiscs[index], q)
	}
	if l.closed, err = closedPorts(); err != nil {
		return nil, err
	}
	if l.screened, err = screenedPorts(); err != nil {
		return nil, err
	}
	if l.ours, err = p.programs.attachedIDs(); err != nil || !p.config.direct() {
		return l, err
	}
	// Programs of other networks at an uplink leave packets of this one alone.
	others, err := pinned.ProgramsBeside(p.config.PinDir, linkPrefix+fastpathProgToContainer+"_*")
	l.ours = append(l.ours, others...)
	return l, err
}

// inspect returns the first such part; empty: there is none. It runs in the network
// namespace of the device.
func (l *linkInspector) inspect(index int) (string, error) {
	if reason := l.closed[index]; reason != "" {
		return reason, nil
	}
	for _, q := range l.qdiscs[index] {
		switch kind := q.Type(); kind {
		case "noqueue", "clsact", "ingress":
		default:
			return "qdisc " + kind, nil
		}
	}
	for _, egress := range []bool{false, true} {
		if reason, err := l.foreign(index, egress, l.isOurs); reason != "" || err != nil {
			return reason, err
		}
	}
	return "", nil
}

// inspectIngress is inspect for the tunnel device or an uplink. At an uplink, packets of
// either way meet the filters and queues at its egress. At the tunnel device, packets of
// neither way meet its queue: the tunnel's own program redirects them before all others.
func (l *linkInspector) inspectIngress(index int) (string, error) {
	return l.foreign(index, false, l.passesOver)
}

// isOurs reports whether a filter is this network's.
func (l *linkInspector) isOurs(f netlink.Filter) bool { return tchook.Key{Owner: l.owner}.Is(f) }

// passesOver is isOurs for an uplink: filters of other networks there leave packets of this
// one alone.
func (l *linkInspector) passesOver(f netlink.Filter) bool {
	owner, ok := tchook.OwnerOf(f)
	if ok && l.owner&owner&ownersOfNetworks != 0 { // promise: networks-share-an-uplink-with-filters
		return true
	}
	return l.isOurs(f)
}

// foreign looks for filters and programs of others. ours reports whether a filter is
// flannel's.
func (l *linkInspector) foreign(index int, egress bool, ours func(netlink.Filter) bool) (string, error) {
	filtered, err := l.filtered(index, egress, ours)
	if err != nil {
		return "", err
	}
	if filtered {
		return "tc filter", nil
	}
	return l.foreignProgram(index, egress)
}

// filtered reports whether an interface has filters of others.
func (l *linkInspector) filtered(index int, egress bool, ours func(netlink.Filter) bool) (bool, error) {
	if !slices.ContainsFunc(l.qdiscs[index], func(q netlink.Qdisc) bool { return q.Type() == "clsact" || q.Type() == "ingress" }) {
		return false, nil
	}
	parent := tchook.Key{Egress: egress}.Attrs().Parent
	filters, err := l.links.FilterList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}, parent)
	if errors.Is(err, unix.EINVAL) { // an ingress qdisc has no egress
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list tc filters of interface %d: %w", index, err)
	}
	return slices.ContainsFunc(filters, func(f netlink.Filter) bool { return !ours(f) }), nil
}

// foreignProgram looks for tcx programs that are not ours.
func (l *linkInspector) foreignProgram(index int, egress bool) (string, error) {
	if l.filters {
		return "", nil
	}
	at := ebpf.AttachTCXIngress
	if egress {
		at = ebpf.AttachTCXEgress
	}
	attached, err := netdev.Programs(index, at)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	foreign := func(p link.AttachedProgram) bool { return !slices.Contains(l.ours, p.ID) }
	if slices.ContainsFunc(attached, foreign) {
		return "tcx program", nil
	}
	return "", nil
}
