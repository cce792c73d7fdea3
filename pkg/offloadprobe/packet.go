package offloadprobe

import (
	"encoding/binary"
	"errors"
)

const (
	// magic begins each datagram and each TCP probe.
	magic = 0x464c4f50 // "FLOP"
	// headerLen is the length of a header. A receipt is a header.
	headerLen = 24
	// maxTCP is the largest TCP probe that a responder reads, in bytes. Three
	// segments of a jumbo frame fit.
	maxTCP = 1 << 16
)

// kind is the kind of a message.
type kind uint8

const (
	kindProbe kind = iota + 1
	kindReceipt
)

// header begins a message, in network byte order.
type header struct {
	kind  kind
	shape shape
	// index is the datagram's number within its probe.
	index uint8
	// token identifies the probe, and seeds its payload.
	token uint64
	// tos of a receipt is the TOS field or traffic class with which the datagram arrived.
	// layer is the code of the fault that the sender's own probes find on the way to the
	// receiver.
	tos, layer byte
	// port of a tcpArrival is the source of the SYN.
	port uint16
	// length of a probe is that of the header and the payload. It is 0 in a datagram of an
	// earlier release.
	length uint32
}

var errNoMessage = errors.New("not a message of this program")

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b, magic)
	b[4], b[5], b[6], b[7] = byte(h.kind), byte(h.shape), h.index, 0
	binary.BigEndian.PutUint64(b[8:], h.token)
	b[16], b[17] = h.tos, h.layer
	binary.BigEndian.PutUint16(b[18:], h.port)
	binary.BigEndian.PutUint32(b[20:], h.length)
}

func (h *header) parse(b []byte) error {
	if len(b) < headerLen || binary.BigEndian.Uint32(b) != magic {
		return errNoMessage
	}
	*h = header{
		kind: kind(b[4]), shape: shape(b[5]), index: b[6], token: binary.BigEndian.Uint64(b[8:]),
		tos: b[16], layer: b[17], port: binary.BigEndian.Uint16(b[18:]), length: binary.BigEndian.Uint32(b[20:]),
	}
	return nil
}

// message returns a probe of size bytes, header and payload.
func (h header) message(size int) []byte {
	b := make([]byte, max(size, headerLen))
	h.put(b)
	for i := range b[headerLen:] {
		b[headerLen+i] = payload(h.token, i)
	}
	return b
}

// intact reports whether a message is the sent one, as a whole. Packets with a wrong
// checksum that a device declares right are damaged.
func (h header) intact(message []byte) bool {
	if h.length != 0 && h.length != uint32(len(message)) {
		return false
	}
	for i, v := range message[headerLen:] {
		if v != payload(h.token, i) {
			return false
		}
	}
	return true
}

// payload is byte i of a probe's payload.
func payload(token uint64, i int) byte { return byte(token>>(8*(i&7))) + byte(i>>3) }
