package offloadprobe

import "github.com/coreos/flannel/pkg/inet"

// shape is a set of packets that are sent together.
type shape uint8

const (
	// small is the control: what it loses has no offload as its cause.
	small shape = iota
	smallECN
	smallChecksum
	full
	fullChecksum
	segments
	// mergedSmall is the control of merged, which has a port of its own.
	mergedSmall
	merged
	tcpSYN   // a SYN with a computed checksum, the control of connections
	tcpSmall // the control of TCP
	tcpFull
	tcpTrain
	tcpSegments
	// udpCheck is the check of UDP. tcpSegments is that of TCP.
	udpCheck
	// tcpConnect is the connection of tcpSmall. It is counted, and not sent.
	tcpConnect
	// tcpArrival is the question whether a SYN has arrived. It is sent, and not counted.
	tcpArrival
	shapes // their number
)

// form describes a shape.
type form struct {
	tcp bool
	// syn is a SYN only, which needs no connection.
	syn bool
	// packets is the number of packets on the wire.
	packets int
	// full packets have the size of the MTU; others have smallLen bytes of payload.
	full bool
	// offload leaves the checksum to the device. segment sends the packets as one
	// super-packet, which always leaves the checksum to the device.
	offload, segment bool
	// merge lets the receiver merge the packets (UDP_GRO, udp(7)).
	merge bool
	tos   byte
}

const (
	// smallLen is the payload of a small packet in bytes, with the header. It is odd, and
	// that of a full packet is even: some devices sum up odd ones wrongly.
	smallLen = 41
	// ect0 is the codepoint ECT(0) of RFC 3168 in the TOS field or traffic class; ecnMask covers both
	// bits.
	ect0, ecnMask = 2, 3
	// udpHeader is the length of a UDP header.
	udpHeader = 8
	// maxPacket is the largest IP packet, and so the largest super-packet of UDP_SEGMENT.
	maxPacket = 1<<16 - 1
)

// forms has the form of each shape. A super-packet of two full packets is longer than
// the MTU, as those of containers are, unless that would exceed maxPacket. udpCheck is
// short: tcpSegments checks the size.
var forms = [shapes]form{
	small:         {packets: 1},
	smallECN:      {packets: 1, tos: ect0},
	smallChecksum: {packets: 1, offload: true},
	full:          {packets: 1, full: true},
	fullChecksum:  {packets: 1, full: true, offload: true},
	segments:      {packets: 2, full: true, segment: true},
	mergedSmall:   {packets: 1, merge: true},
	merged:        {packets: 2, full: true, segment: true, merge: true},
	tcpSYN:        {syn: true, packets: 1},
	tcpSmall:      {tcp: true, packets: 1},
	tcpFull:       {tcp: true, packets: 1, full: true},
	tcpTrain:      {tcp: true, packets: 3, full: true},
	tcpSegments:   {tcp: true, packets: 2, full: true, segment: true},
	udpCheck:      {packets: 2, segment: true, merge: true, tos: ect0},
	tcpConnect:    {packets: 1},
	tcpArrival:    {packets: 1},
}

// size returns the payload of one datagram of a family with its header, in bytes.
func (f form) size(mtu int, family inet.Family) int {
	if !f.full {
		return smallLen
	}
	size := mtu - family.HeaderLen() - udpHeader
	if f.segment {
		size = min(size, (maxPacket-family.HeaderLen()-udpHeader)/f.packets&^1)
	}
	return max(smallLen, size)
}

// writes returns the lengths of the writes of a TCP probe. Each write is one packet
// of at most mss bytes, or one super-packet.
func (f form) writes(mss int) []int {
	switch {
	case !f.full:
		return []int{smallLen}
	case f.segment: // as short as it can be
		return []int{mss + smallLen}
	}
	lengths := make([]int, f.packets)
	for i := range lengths {
		lengths[i] = min(mss, maxTCP/f.packets&^1)
	}
	return lengths
}
