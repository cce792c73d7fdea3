package bpf

import (
	"encoding/binary"
	"math/bits"
	"net"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
)

// inAddr returns an IPv4 address in memory order, as in packets and maps (in_addr_t).
func inAddr(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func fromInAddr(v uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func inMask(bits int) uint32 {
	return binary.NativeEndian.Uint32(net.CIDRMask(bits, 32))
}

// in6Addr is inAddr for IPv6. An IPv4 address is mapped.
func in6Addr(a netip.Addr) (words [4]uint32) {
	b := a.As16()
	for i := range words {
		words[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return words
}

func fromIn6Addr(words [4]uint32) netip.Addr {
	var b [16]byte
	for i, w := range words {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b)
}

func in6Mask(bits int) [4]uint32 {
	return in6Addr(netip.AddrFrom16([16]byte(net.CIDRMask(bits, 128))))
}

// key4 and key6 are subnets as keys of the peers' maps.
func key4(s netip.Prefix) flannelKey {
	return flannelKey{Mask: inMask(s.Bits()), Subnet: inAddr(s.Masked().Addr())}
}

func key6(s netip.Prefix) flannelKey6 {
	return flannelKey6{Subnet: in6Addr(s.Masked().Addr()), Length: uint32(s.Bits())}
}

func (k flannelKey) prefix() netip.Prefix {
	return netip.PrefixFrom(fromInAddr(k.Subnet), bits.OnesCount32(k.Mask))
}

func (k flannelKey6) prefix() netip.Prefix {
	return netip.PrefixFrom(fromIn6Addr(k.Subnet), int(k.Length))
}

// versions are the families in the programs: version fields of packets.
var versions = [2]uint32{inet.IPv4: 4, inet.IPv6: 6}
