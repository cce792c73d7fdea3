package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// kernelNeigh is a neighbour as the kernel has it, or a forwarding entry if family
// is AF_BRIDGE.
type kernelNeigh struct {
	family uint8
	link   int
	state  uint16 // NUD_*
	flags  uint8  // NTF_*
	ip     netip.Addr
	mac    MAC
}

// permanent reports whether a program set the entry; the kernel's own expire.
func (n kernelNeigh) permanent() bool { return n.state&unix.NUD_PERMANENT != 0 }

// neighEntry is a Neigh or an FDB.
type neighEntry interface {
	comparable
	// ours returns the kernel's form.
	ours(link int) kernelNeigh
}

func (n Neigh) ours(link int) kernelNeigh {
	return kernelNeigh{family: addrFamily(n.IP), link: link, state: unix.NUD_PERMANENT, ip: n.IP, mac: n.MAC}
}

func (f FDB) ours(link int) kernelNeigh {
	return kernelNeigh{family: unix.AF_BRIDGE, link: link, state: unix.NUD_PERMANENT, flags: unix.NTF_SELF, ip: f.Dst, mac: f.MAC}
}

func (n kernelNeigh) String() string {
	if n.family == unix.AF_BRIDGE {
		return fmt.Sprintf("forwarding entry %v dst %v", n.mac, n.ip)
	}
	return fmt.Sprintf("neighbour %v lladdr %v", n.ip, n.mac)
}

// appendTo appends a struct ndmsg and the attributes.
func (n kernelNeigh) appendTo(b []byte) []byte {
	b = append(b, n.family, 0, 0, 0)
	b = native.AppendUint32(b, uint32(n.link))
	b = native.AppendUint16(b, n.state)
	b = append(b, n.flags, unix.RTN_UNSPEC)
	b = appendAddr(b, unix.NDA_DST, n.ip)
	return appendAttr(b, unix.NDA_LLADDR, n.mac[:]...)
}

// parseNeigh decodes an entry. It returns false for a link-layer address that is
// no Ethernet address.
func parseNeigh(body []byte) (kernelNeigh, bool) {
	if len(body) < unix.SizeofNdMsg {
		return kernelNeigh{}, false
	}
	n := kernelNeigh{family: body[0], link: int(native.Uint32(body[4:])), state: native.Uint16(body[8:]), flags: body[10]}
	ok := true
	for kind, value := range attributes(body, unix.SizeofNdMsg) {
		switch kind {
		case unix.NDA_DST:
			n.ip, _ = netip.AddrFromSlice(value)
		case unix.NDA_LLADDR:
			ok = copy(n.mac[:], value) == len(n.mac) && len(value) == len(n.mac)
		}
	}
	return n, ok
}

// neighRequest is the request for the entries of one link. A strict dump filters
// by the attribute; an older kernel sends all.
func neighRequest(family uint8, link int) []byte {
	b := append(make([]byte, 0, 64), family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	return appendUint32(b, unix.NDA_IFINDEX, uint32(link))
}
