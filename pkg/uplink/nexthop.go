package uplink

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// Attributes of routes and of next-hop objects (linux/rtnetlink.h,
// linux/nexthop.h).
const (
	rtaNHID  = 30
	nhaID    = 1
	nhaGroup = 2
	nhaOIF   = 5
)

// nhmsgLen is the size of struct nhmsg, nhGroupLen that of struct nexthop_grp.
const (
	nhmsgLen   = 8
	nhGroupLen = 8
)

// nexthopLinks returns the interfaces that the default route of a metric leads
// to by a next-hop object. With net.ipv4.nexthop_compat_mode=0 the kernel lists
// the object's id alone, which the netlink library passes over.
func nexthopLinks(f inet.Family, metric int) ([]int, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(f.AF())}})
	routes, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	if err != nil {
		return nil, fmt.Errorf("list next hops of routes: %w", err)
	}
	var links []int
	for _, m := range routes {
		msg := nl.DeserializeRtMsg(m)
		if msg.Dst_len != 0 || msg.Table != unix.RT_TABLE_MAIN || msg.Type != unix.RTN_UNICAST {
			continue
		}
		attrs, err := attributes(m, msg.Len())
		if err != nil {
			return nil, err
		}
		if id := attrs[rtaNHID]; len(id) == 4 && u32(attrs[unix.RTA_PRIORITY]) == uint32(metric) {
			of, err := linksOfNexthop(u32(id))
			if err != nil {
				return nil, err
			}
			links = append(links, of...)
		}
	}
	return links, nil
}

// linksOfNexthop returns the interface of a next-hop object, or those of a group.
func linksOfNexthop(id uint32) ([]int, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEXTHOP, 0)
	attr := nl.NewRtAttr(nhaID, binary.NativeEndian.AppendUint32(nil, id)).Serialize()
	req.AddRawData(append(make([]byte, nhmsgLen), attr...))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("look up next hop %d: %w", id, err)
	}
	var links []int
	for _, m := range answers {
		attrs, err := attributes(m, nhmsgLen)
		if err != nil {
			return nil, err
		}
		if oif := attrs[nhaOIF]; len(oif) == 4 {
			links = append(links, int(u32(oif)))
		}
		// A group holds no groups (nh_check_attr_group in net/ipv4/nexthop.c).
		for g := attrs[nhaGroup]; len(g) >= nhGroupLen; g = g[nhGroupLen:] {
			of, err := linksOfNexthop(u32(g))
			if err != nil {
				return nil, err
			}
			links = append(links, of...)
		}
	}
	return links, nil
}

// attributes returns the attributes behind the header of a message, by type.
func attributes(m []byte, header int) (map[uint16][]byte, error) {
	if len(m) < header {
		return nil, fmt.Errorf("message of %d bytes, header of %d", len(m), header)
	}
	list, err := nl.ParseRouteAttr(m[header:])
	if err != nil {
		return nil, err
	}
	attrs := make(map[uint16][]byte, len(list))
	for _, a := range list {
		attrs[a.Attr.Type] = a.Value
	}
	return attrs, nil
}

// u32 is 0 for an attribute that is not there.
func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
