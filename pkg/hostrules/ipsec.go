package hostrules

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/rtnl"
)

// xfrm reads policies of IPsec.
type xfrm struct {
	*netlink.Handle
	requests *nl.NetlinkSocket // for what the library lacks
}

func openXfrm() (*xfrm, error) {
	requests, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_XFRM)
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_XFRM)
	if err != nil {
		requests.Close()
		return nil, err
	}
	return &xfrm{h, requests}, nil
}

func (x *xfrm) close() {
	x.requests.Close()
	x.Handle.Close()
}

// policies returns the host's policies for a family. A nil xfrm has none.
func (x *xfrm) policies(f inet.Family) ([]netlink.XfrmPolicy, error) {
	if x == nil {
		return nil, nil
	}
	return rtnl.RetryDump("IPsec policies", func() ([]netlink.XfrmPolicy, error) {
		return x.XfrmPolicyList(f.AF())
	})
}

// IPsecWithin describes the policies that may select packets between two addresses of
// network and that the host forwards.
func (r *Reader) IPsecWithin(network netip.Prefix) ([]string, error) {
	all, err := r.xfrm.policies(inet.Of(network.Addr()))
	if err != nil {
		return nil, err
	}
	blocked, err := r.xfrm.blockedByDefault()
	if err != nil {
		return nil, err
	}
	var found []string
	if blocked[netlink.XFRM_DIR_FWD] || blocked[netlink.XFRM_DIR_OUT] { // promise: ipsec-default-is-heeded
		found = append(found, "IPsec default policy (ip xfrm policy getdefault)")
	}
	for _, p := range all {
		if p.Dir <= netlink.XFRM_DIR_FWD && overlaps(p.Src, network) && overlaps(p.Dst, network) { // others are those of sockets
			found = append(found, fmt.Sprintf("IPsec policy from %v to %v", p.Src, p.Dst))
		}
	}
	return found, nil
}

func overlaps(n *net.IPNet, network netip.Prefix) bool {
	if contains(n, network.Addr()) {
		return true
	}
	first, ok := netip.AddrFromSlice(n.IP)
	return ok && network.Contains(first.Unmap())
}

// findIPsec returns the first policy of the host that demands ESP or AH of a datagram, or
// blocks it. Policies count in the order of their priority, as in the kernel. One that
// lets datagrams pass as they are hides those after it.
func (r *Reader) findIPsec(d Datagrams) (string, error) {
	all, err := r.xfrm.policies(d.family())
	if err != nil {
		return "", err
	}
	blocked, err := r.xfrm.blockedByDefault()
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(all, func(a, b netlink.XfrmPolicy) int { return cmp.Compare(a.Priority, b.Priority) })
	for _, dir := range []netlink.Dir{netlink.XFRM_DIR_OUT, netlink.XFRM_DIR_IN} {
		if rule := findPolicy(all, dir, d, blocked[dir]); rule != "" {
			return rule, nil
		}
	}
	return "", nil
}

func findPolicy(all []netlink.XfrmPolicy, dir netlink.Dir, d Datagrams, blocked bool) string {
	var ours []netlink.XfrmPolicy
	for _, p := range all {
		local, _ := ends(p)
		if p.Dir != dir || !contains(local, d.Local) || !selects(p, d.Port) {
			continue
		}
		// One for our port holds for every peer that comes.
		if p.DstPort == int(d.Port) && demands(p) {
			return describe(p)
		}
		ours = append(ours, p)
	}
	for _, peer := range d.Peers {
		i := slices.IndexFunc(ours, func(p netlink.XfrmPolicy) bool {
			_, remote := ends(p)
			// One for some source ports leaves others to the next.
			return contains(remote, peer) && (demands(p) || p.SrcPort == 0)
		})
		switch {
		case i >= 0 && demands(ours[i]):
			return describe(ours[i])
		case i < 0 && blocked:
			return fmt.Sprintf("IPsec blocks packets without a policy (ip xfrm policy getdefault), such as those of peer %v", peer)
		}
	}
	return ""
}

// ends returns the two sides that a policy selects.
func ends(p netlink.XfrmPolicy) (local, remote *net.IPNet) {
	if p.Dir == netlink.XFRM_DIR_IN {
		return p.Dst, p.Src
	}
	return p.Src, p.Dst
}

// contains reports whether a side of a policy selects an address. The library mistakes an
// IPv6 network that ends in 96 zero bits for one of IPv4 (XfrmAddress.ToIPNet). It also
// drops a length above 32. Then the first 32 bits decide.
func contains(n *net.IPNet, a netip.Addr) bool {
	switch {
	case n == nil:
		return true
	case a.Is6() && n.IP.To4() != nil: // promise: ipsec-of-ipv6-is-heeded
		var network [16]byte
		copy(network[:], n.IP.To4())
		bits := 32
		if n.Mask != nil {
			bits, _ = n.Mask.Size()
		}
		return netip.PrefixFrom(netip.AddrFrom16(network), bits).Contains(a)
	}
	return n.Contains(a.AsSlice())
}

// selects reports whether a policy selects UDP to a port without a mark. One with an
// interface number (if_id) is for packets that a route leads into a device of IPsec.
func selects(p netlink.XfrmPolicy, port uint16) bool {
	marked := p.Mark != nil && p.Mark.Value&p.Mark.Mask != 0
	return (p.Proto == 0 || p.Proto == unix.IPPROTO_UDP) && (p.DstPort == 0 || p.DstPort == int(port)) && !marked && p.Ifid == 0
}

func demands(p netlink.XfrmPolicy) bool {
	return p.Action != netlink.XFRM_POLICY_ALLOW || len(p.Tmpls) > 0 // promise: ipsec-is-heeded
}

func describe(p netlink.XfrmPolicy) string {
	what := "blocks"
	if p.Action == netlink.XFRM_POLICY_ALLOW {
		what = "demands " + p.Tmpls[0].Proto.String() + " of"
	}
	return fmt.Sprintf("an IPsec policy %s the datagrams: src %v dst %v %v priority %d (see: ip xfrm policy)", what, p.Src, p.Dst, p.Dir, p.Priority)
}

// xfrmGetDefault is XFRM_MSG_GETDEFAULT, and blockDefault XFRM_USERPOLICY_BLOCK
// (linux/xfrm.h of 5.15).
const (
	xfrmGetDefault = 0x28
	blockDefault   = 1
)

// blockedByDefault reports for each direction whether the kernel drops packets
// without a policy.
func (x *xfrm) blockedByDefault() (map[netlink.Dir]bool, error) {
	if x == nil {
		return nil, nil
	}
	req := nl.NewNetlinkRequest(xfrmGetDefault, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_XFRM: {Socket: x.requests}}
	req.AddRawData(make([]byte, unix.NLMSG_ALIGNTO)) // struct xfrm_userpolicy_default
	answers, err := req.Execute(unix.NETLINK_XFRM, 0)
	if errors.Is(err, unix.EINVAL) || absent(err) {
		return nil, nil // an older kernel
	}
	if err != nil {
		return nil, fmt.Errorf("read default policy of IPsec: %w", err)
	}
	for _, m := range answers {
		if len(m) >= 3 { // in, fwd, out
			return map[netlink.Dir]bool{
				netlink.XFRM_DIR_IN: m[0] == blockDefault, netlink.XFRM_DIR_FWD: m[1] == blockDefault,
				netlink.XFRM_DIR_OUT: m[2] == blockDefault,
			}, nil
		}
	}
	return nil, nil
}
