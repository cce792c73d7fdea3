package inet

import (
	"encoding/binary"
	"net/netip"
)

// Raw is an address in the form that packet paths compare: its bytes as two numbers.
// An IPv4 address is IPv4-mapped (RFC 4291, section 2.5.5.2). The zero Raw is no
// address of a host.
type Raw struct{ Hi, Lo uint64 }

// mapped are the bits of Lo above an IPv4-mapped address.
const mapped = 0xffff << 32

// RawOf returns the form of a valid address.
func RawOf(a netip.Addr) Raw {
	b := a.As16()
	return Raw6(b[:])
}

// Raw4 returns the form of an IPv4 address, a big-endian number.
func Raw4(a uint32) Raw { return Raw{Lo: mapped | uint64(a)} }

// Raw6 returns the form of the IPv6 address in the first 16 bytes of b.
func Raw6(b []byte) Raw {
	return Raw{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// Addr undoes RawOf.
func (r Raw) Addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], r.Hi)
	binary.BigEndian.PutUint64(b[8:], r.Lo)
	return netip.AddrFrom16(b).Unmap()
}

// Is4 reports whether r is an IPv4 address.
func (r Raw) Is4() bool { return r.Hi == 0 && r.Lo>>32 == mapped>>32 }

// And returns the bits that are set in both.
func (r Raw) And(m Raw) Raw { return Raw{r.Hi & m.Hi, r.Lo & m.Lo} }

// Or returns the bits that are set in either.
func (r Raw) Or(m Raw) Raw { return Raw{r.Hi | m.Hi, r.Lo | m.Lo} }

// Not returns the complement.
func (r Raw) Not() Raw { return Raw{^r.Hi, ^r.Lo} }

// MaskOf returns the network mask of a prefix.
func MaskOf(p netip.Prefix) Raw {
	bits := p.Bits() + 128 - p.Addr().BitLen()
	// A shift by 64 or more gives 0.
	return Raw{^(^uint64(0) >> min(bits, 64)), ^(^uint64(0) >> max(bits-64, 0))}
}
