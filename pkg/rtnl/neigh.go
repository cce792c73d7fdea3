package rtnl

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// kernelNeigh is an entry as the kernel has it.
type kernelNeigh struct {
	Neigh
	family uint8 // AF_BRIDGE for a forwarding entry
	link   int
	state  uint16 // NUD_*
	flags  uint8  // NTF_*
	// partial: an announcement by rtnl_fdb_notify (net/core/rtnetlink.c), which has no
	// destination. Older kernels send one beside that of the driver.
	partial bool
}

// permanent reports whether a program set the entry; the kernel's own expire.
func (n kernelNeigh) permanent() bool { return n.state&unix.NUD_PERMANENT != 0 }

// ourNeigh returns the kernel's form of an entry of ours.
func ourNeigh(n Neigh, link int) kernelNeigh {
	k := kernelNeigh{Neigh: n, family: addrFamily(n.IP), link: link, state: unix.NUD_PERMANENT}
	if n.FDB {
		k.family, k.flags = unix.AF_BRIDGE, unix.NTF_SELF
	}
	return k
}

// appendTo appends a struct ndmsg and the attributes.
func (n kernelNeigh) appendTo(b []byte) []byte {
	b = append(b, n.family, 0, 0, 0)
	b = native.AppendUint32(b, uint32(n.link))
	b = native.AppendUint16(b, n.state)
	b = append(b, n.flags, unix.RTN_UNSPEC)
	b = appendAddr(b, unix.NDA_DST, n.IP)
	return appendAttr(b, unix.NDA_LLADDR, n.MAC[:]...)
}

// parseNeigh decodes an entry. It returns false for a link-layer address that is
// no Ethernet address.
func parseNeigh(body []byte) (kernelNeigh, bool) {
	if len(body) < unix.SizeofNdMsg {
		return kernelNeigh{}, false
	}
	n := kernelNeigh{family: body[0], link: int(native.Uint32(body[4:])), state: native.Uint16(body[8:]), flags: body[10]}
	n.FDB = n.family == unix.AF_BRIDGE
	ok, times := true, false
	for kind, value := range attributes(body, unix.SizeofNdMsg) {
		switch kind {
		case unix.NDA_CACHEINFO:
			times = true
		case unix.NDA_DST:
			n.IP, _ = netip.AddrFromSlice(value)
		case unix.NDA_LLADDR:
			ok = copy(n.MAC[:], value) == len(n.MAC) && len(value) == len(n.MAC)
		}
	}
	n.partial = n.FDB && !n.IP.IsValid() && !times
	return n, ok
}
