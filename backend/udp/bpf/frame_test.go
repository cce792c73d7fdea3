package bpf

import (
	"encoding/binary"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// frame is a datagram with a packet in it, each field free to be wrong. Ports
// of the inner packet are 9999; its payload is "hello" unless told otherwise.
type frame struct {
	outerSource, outerDestination netip.Addr
	source, destination           netip.Addr

	outerTOS, tos    byte
	version          byte   // of the inner packet; 0 for its own
	fragment         uint16 // outer flags and offset, of IPv4
	options          []byte // outer, of IPv4
	sourcePort, port uint16 // outer; 0 for what is usual
	checksum         uint16 // outer, of UDP
	sum              uint16 // outer, of IP; added to the right one
	trailer          []byte // after the inner packet, part of the datagram
	padding          []byte // after the datagram, as of a short Ethernet frame
	raw              []byte // if not nil, in place of all that follows the outer IP header
	lost             int    // bytes that are missing at the end
	// Added to the outer total length, the one of UDP, and the inner one.
	outerCut, udpCut, length int
	payload                  []byte
	outerProtocol            byte // 0 for UDP
}

const echoPort = 9999

func (f frame) bytes() []byte {
	payload := f.payload
	if payload == nil {
		payload = []byte("hello")
	}
	inner := udp(echoPort, echoPort, 0, payload)
	if f.source.Is6() { // RFC 8200 section 8.1
		binary.BigEndian.PutUint16(inner[6:], pseudoSum(f.source, f.destination, inner))
		inner = append(ip6(f.version, f.tos, 17, len(inner)+f.length, f.source, f.destination), inner...)
	} else {
		inner = append(ip(f.version, f.tos, 0, 17, nil, len(inner)+f.length, f.source, f.destination), inner...)
	}
	inner = append(inner, f.trailer...)
	outer := udp(or(f.sourcePort, 50000), or(f.port, port), f.checksum, inner)
	binary.BigEndian.PutUint16(outer[4:], uint16(len(outer)+f.udpCut))
	if f.raw != nil {
		outer = f.raw
	}
	protocol := byte(or(uint16(f.outerProtocol), 17))
	var head []byte
	if f.outerSource.Is6() {
		head = ip6(0, f.outerTOS, protocol, len(outer)+f.outerCut, f.outerSource, f.outerDestination)
	} else {
		head = ip(0, f.outerTOS, f.fragment, protocol, f.options, len(outer)+f.outerCut, f.outerSource, f.outerDestination)
		binary.BigEndian.PutUint16(head[10:], binary.BigEndian.Uint16(head[10:])+f.sum)
	}
	packet := append(append(head, outer...), f.padding...)
	return packet[:len(packet)-f.lost]
}

func or(v, usual uint16) uint16 {
	if v == 0 {
		return usual
	}
	return v
}

func udp(source, destination, checksum uint16, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, source)
	binary.BigEndian.PutUint16(b[2:], destination)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	binary.BigEndian.PutUint16(b[6:], checksum)
	return append(b, payload...)
}

func ip(version, tos byte, fragment uint16, protocol byte, options []byte, length int, source, destination netip.Addr) []byte {
	b := make([]byte, 20, 60)
	b[0] = byte(or(uint16(version), 4))<<4 | byte(5+len(options)/4)
	b[1] = tos
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+length))
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8], b[9] = 64, protocol
	copy(b[12:], source.AsSlice())
	copy(b[16:], destination.AsSlice())
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return b
}

// ip6 is a header of IPv6.
func ip6(version, tos, next byte, length int, source, destination netip.Addr) []byte {
	b := make([]byte, 40)
	b[0], b[1] = byte(or(uint16(version), 6))<<4|tos>>4, tos<<4
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	b[6], b[7] = next, 64
	copy(b[8:], source.AsSlice())
	copy(b[24:], destination.AsSlice())
	return b
}

// pseudoSum is the checksum of a UDP datagram with its addresses (RFC 768, RFC 8200
// section 8.1).
func pseudoSum(source, destination netip.Addr, datagram []byte) uint16 {
	b := append(source.AsSlice(), destination.AsSlice()...)
	b = append(b, 0, 17, byte(len(datagram)>>8), byte(len(datagram)))
	b = append(b, datagram...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	return checksum(b)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// wire sends IP packets from one host's interface to another's as they are.
type wire struct {
	from *host
	fd   int
	to   unix.SockaddrLinklayer
}

func newWire(from, to *host, name, toName string) *wire {
	from.t.Helper()
	l, err := to.Netlink().LinkByName(toName)
	from.must(err)
	w := &wire{from: from, to: unix.SockaddrLinklayer{
		Ifindex: from.link(name), Halen: 6,
	}}
	copy(w.to.Addr[:], l.Attrs().HardwareAddr)
	from.must(from.Do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	from.t.Cleanup(func() { from.must(unix.Close(w.fd)) })
	return w
}

// send returns when the receiving host has the packet: over veth, that is all
// done on the processor of the sender.
func (w *wire) send(packet []byte) {
	w.from.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w.to.Protocol = htons(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		w.to.Protocol = htons(unix.ETH_P_IPV6)
	}
	w.from.must(unix.Sendto(w.fd, packet, 0, &w.to))
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
