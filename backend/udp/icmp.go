package udp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/subnet"
)

const (
	// maxICMPError is the longest ICMP error of a router (RFC 1812 section
	// 4.3.2.3), with as much of the packet as fits.
	maxICMPError = 576
	icmpHeader   = 8

	codeNetUnreachable = 0
	codeFragNeeded     = 4

	// icmpRate (per second) and icmpBurst are the kernel's limits
	// (net.ipv4.icmp_msgs_per_sec, icmp_msgs_burst).
	icmpRate  = 1000
	icmpBurst = 50
)

// icmpErrors makes "destination unreachable" messages about packets that cannot
// be sent. One goroutine uses it.
//
// Their source is an address of Network that no host has. The kernel drops a
// packet that arrives from one of its own addresses as spoofed
// (fib_validate_source, net/ipv4/fib_frontend.c).
type icmpErrors struct {
	source  netip.Addr
	limiter *rate.Limiter
	scratch [maxICMPError]byte
}

func newICMPErrors(network, own netip.Prefix) *icmpErrors {
	// No lease has Network's first address, unless SubnetMin allows it. If ours
	// has it, Network's last one is a broadcast address of another host's subnet.
	source := network.Addr()
	if own.Contains(source) {
		source = subnet.LastAddr(network)
	}
	return &icmpErrors{source: source, limiter: rate.NewLimiter(icmpRate, icmpBurst)}
}

// unreachable returns the message about p, valid until the next call. It returns
// nil if p is not answerable or the rate limit is reached. mtu is the next hop's
// for codeFragNeeded (RFC 1191), else 0.
func (e *icmpErrors) unreachable(p ipv4Packet, code byte, mtu int) []byte {
	if !answerable(p) || !e.limiter.Allow() {
		return nil
	}
	quoted := min(len(p), maxICMPError-ipv4HeaderLen-icmpHeader)
	m := e.scratch[:ipv4HeaderLen+icmpHeader+quoted]
	clear(m[:ipv4HeaderLen+icmpHeader])

	m[0] = 4<<4 | ipv4HeaderLen/4
	m[1] = 0xc0 // precedence "internetwork control", RFC 1812 section 4.3.2.5
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)))
	m[8] = 64 // TTL
	m[9] = protoICMP
	copy(m[12:16], e.source.AsSlice())
	copy(m[16:20], p[12:16])
	binary.BigEndian.PutUint16(m[10:], checksum.Finish(checksum.Add(0, m[:ipv4HeaderLen])))

	icmp := m[ipv4HeaderLen:]
	icmp[0] = byte(ipv4.ICMPTypeDestinationUnreachable)
	icmp[1] = code
	binary.BigEndian.PutUint16(icmp[6:], uint16(mtu))
	copy(icmp[icmpHeader:], p[:quoted])
	binary.BigEndian.PutUint16(icmp[2:], checksum.Finish(checksum.Add(0, icmp)))
	return m
}

// answerable returns true if RFC 1122 section 3.2.2 allows an ICMP error about p:
// not about ICMP errors, later fragments, or packets not from and to one host.
func answerable(p ipv4Packet) bool {
	src, dst := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	// Not global unicast are 0.0.0.0, loopback, multicast, link-local, broadcast.
	if p.laterFragment() || !src.IsGlobalUnicast() || !dst.IsGlobalUnicast() {
		return false
	}
	if p.protocol() != protoICMP {
		return true
	}
	if len(p) <= p.headerLen() {
		return false
	}
	switch ipv4.ICMPType(p[p.headerLen()]) {
	case ipv4.ICMPTypeDestinationUnreachable, ipv4.ICMPTypeRedirect, ipv4.ICMPTypeTimeExceeded,
		ipv4.ICMPTypeParameterProblem, 4: // 4 is source quench, RFC 6633
		return false
	}
	return true
}
