package udp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

const (
	// maxICMPError is the longest ICMP error of a router (RFC 1812 section
	// 4.3.2.3), maxICMPv6Error the longest ICMPv6 error (RFC 4443 section 2.4(c)), with
	// as much of the packet as fits.
	maxICMPError   = 576
	maxICMPv6Error = 1280
	icmpHeader     = 8

	codeNetUnreachable = 0
	codeFragNeeded     = 4

	// firstICMPv6Info is the first type of ICMPv6 that is no error (RFC 4443 section
	// 2.1).
	firstICMPv6Info = 128

	// icmpRate (per second) and icmpBurst are the kernel's limits
	// (net.ipv4.icmp_msgs_per_sec, icmp_msgs_burst), for each family.
	icmpRate  = 1000
	icmpBurst = 50
)

// icmpErrors makes ICMP errors about packets of one family that cannot be sent. One
// goroutine uses it.
//
// Their source is an address of Network that no host has. The kernel drops an IPv4
// packet that arrives from one of its own addresses as spoofed
// (fib_validate_source, net/ipv4/fib_frontend.c).
type icmpErrors struct {
	source  netip.Addr
	limiter *rate.Limiter
	scratch [maxICMPv6Error]byte
}

// newICMPErrors returns those of each family that is inside.
func newICMPErrors(p *pathConfig) (all [2]*icmpErrors) {
	for _, f := range p.Inside() {
		all[f] = newFamilyErrors(p.Of(f).Network, p.own[f])
	}
	return all
}

func newFamilyErrors(network, own netip.Prefix) *icmpErrors {
	// No lease has Network's first address, unless SubnetMin allows it. If ours
	// has it, Network's last one is a broadcast address of another host's subnet.
	source := network.Addr()
	if own.Contains(source) {
		source = subnet.LastAddr(network)
	}
	return &icmpErrors{source: source, limiter: rate.NewLimiter(icmpRate, icmpBurst)}
}

// noRoute returns the message "no route to destination" about p, valid until the next
// call. It returns nil if p is not answerable or the rate limit is reached.
func (e *icmpErrors) noRoute(p packet) []byte {
	if p.family() == inet.IPv6 {
		return e.message(p, byte(ipv6.ICMPTypeDestinationUnreachable), codeNetUnreachable, 0)
	}
	return e.message(p, byte(ipv4.ICMPTypeDestinationUnreachable), codeNetUnreachable, 0)
}

// tooBig is noRoute for "packet too big" (RFC 4443) or "fragmentation needed" (RFC
// 1191). mtu is the next hop's. IPv6 hosts ignore less than 1280 (RFC 8201 section 4).
func (e *icmpErrors) tooBig(p packet, mtu int) []byte {
	if p.family() == inet.IPv6 {
		return e.message(p, byte(ipv6.ICMPTypePacketTooBig), 0, max(mtu, inet.IPv6.MinMTU()))
	}
	return e.message(p, byte(ipv4.ICMPTypeDestinationUnreachable), codeFragNeeded, mtu)
}

func (e *icmpErrors) message(p packet, kind, code byte, mtu int) []byte {
	if !answerable(p) || !e.limiter.Allow() {
		return nil
	}
	f := p.family()
	longest, proto := maxICMPError, byte(protoICMP)
	if f == inet.IPv6 {
		longest, proto = maxICMPv6Error, protoICMPv6
	}
	header := f.HeaderLen()
	quoted := min(len(p), longest-header-icmpHeader)
	m := e.scratch[:header+icmpHeader+quoted]
	clear(m[:header+icmpHeader])

	icmp := m[header:]
	icmp[0], icmp[1] = kind, code
	binary.BigEndian.PutUint32(icmp[4:], uint32(mtu)) // IPv4 has it in the lower half
	copy(icmp[icmpHeader:], p[:quoted])
	e.writeHeader(m, p, proto)
	sum := uint64(0)
	if f == inet.IPv6 { // RFC 4443 section 2.3: with the pseudo header
		sum = checksum.Add(uint64(len(icmp))+protoICMPv6, m[8:header])
	}
	binary.BigEndian.PutUint16(icmp[2:], checksum.Finish(checksum.Add(sum, icmp)))
	return m
}

// writeHeader writes the IP header of m, an answer to p.
func (e *icmpErrors) writeHeader(m, p packet, proto byte) {
	const hops = 64
	if p.family() == inet.IPv6 {
		m[0] = 6 << 4
		binary.BigEndian.PutUint16(m[4:], uint16(len(m)-ipv6HeaderLen))
		m[6], m[7] = proto, hops
		copy(m[8:24], e.source.AsSlice())
		copy(m[24:40], p[8:24])
		return
	}
	m[0] = 4<<4 | ipv4HeaderLen/4
	m[1] = 0xc0 // precedence "internetwork control", RFC 1812 section 4.3.2.5
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)))
	m[8], m[9] = hops, proto
	copy(m[12:16], e.source.AsSlice())
	copy(m[16:20], p[12:16])
	binary.BigEndian.PutUint16(m[10:], checksum.Finish(checksum.Add(0, m[:ipv4HeaderLen])))
}

// answerable returns true if RFC 1122 section 3.2.2 or RFC 4443 section 2.4(e) allows
// an ICMP error about p: not about ICMP errors, later fragments, or packets not from
// and to one host.
func answerable(p packet) bool {
	src, dst := p.source().Addr(), p.destination().Addr()
	proto, at, laterFragment := p.payload()
	// Not global unicast are unspecified, loopback, multicast, link-local, broadcast.
	if laterFragment || !src.IsGlobalUnicast() || !dst.IsGlobalUnicast() {
		return false
	}
	if proto != protoICMP && proto != protoICMPv6 {
		return true
	}
	if len(p) <= at {
		return false
	}
	if proto == protoICMPv6 {
		return p[at] >= firstICMPv6Info && p[at] != byte(ipv6.ICMPTypeRedirect)
	}
	switch ipv4.ICMPType(p[at]) {
	case ipv4.ICMPTypeDestinationUnreachable, ipv4.ICMPTypeRedirect, ipv4.ICMPTypeTimeExceeded,
		ipv4.ICMPTypeParameterProblem, 4: // 4 is source quench, RFC 6633
		return false
	}
	return true
}
