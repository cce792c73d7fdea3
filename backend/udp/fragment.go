package udp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/coreos/flannel/pkg/checksum"
)

// errUnfragmentable reports a packet with malformed options or offset, or a path
// MTU below a header and 8 bytes.
var errUnfragmentable = errors.New("packet cannot be fragmented")

// fragmenter cuts IPv4 packets that exceed the path to the peer (RFC 791, section 3.2).
// The outer datagram is never fragmented: the receiver would have to reassemble
// it before any check, and most networks drop UDP fragments. One goroutine uses
// it.
type fragmenter struct {
	scratch [maxIPv4]byte
	header  [maxHeader]byte
}

// datagramSender is a udpsock.Conn or a udpsock.SendConn.
type datagramSender interface {
	Send(b []byte, to netip.AddrPort) error
}

// send sends the fragments of p to a peer, and counts them. See each.
func (f *fragmenter) send(by datagramSender, p packet, mtu int, to *peer) error {
	return f.each(p, mtu, func(fragment packet) error {
		err := by.Send(fragment, to.addr)
		if err == nil {
			to.traffic.tx.add(1, len(fragment))
		}
		return err
	})
}

// each calls send with the fragments of p in order, until a send fails. p is well
// formed and without DF; a fragment has at most mtu bytes and is valid until send
// returns. A packet that fits is sent as it is.
func (f *fragmenter) each(p packet, mtu int, send func(packet) error) error {
	if len(p) <= mtu {
		return send(p)
	}
	first := p[:p.headerLen()]
	copied, err := copiedHeader(f.header[:0], first)
	if err != nil {
		return err
	}
	payload := p[len(first):]
	offset := int(p.flags()&offsetMask) * 8
	if offset+len(payload) > maxIPv4 {
		return errUnfragmentable // reassembled, it would exceed the largest packet
	}
	for at, header := 0, first; at < len(payload); header = copied {
		n := min(len(payload)-at, (mtu-len(header))&^7) // offsets count 8 bytes
		if n <= 0 {
			return errUnfragmentable
		}
		fragment := packet(f.scratch[:len(header)+n])
		copy(fragment, header)
		copy(fragment[len(header):], payload[at:])
		flags := p.flags()&^offsetMask | uint16((offset+at)/8)
		if at+n < len(payload) {
			flags |= flagMF // promise: fragments-have-mf
		}
		binary.BigEndian.PutUint16(fragment[2:], uint16(len(fragment)))
		binary.BigEndian.PutUint16(fragment[6:], flags)
		fragment[10], fragment[11] = 0, 0
		binary.BigEndian.PutUint16(fragment[10:], checksum.Finish(checksum.Add(0, fragment[:len(header)])))
		if err := send(fragment); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// copiedHeader appends to scratch the header of the later fragments. It has only
// the options with the "copied" bit (RFC 791, section 3.1).
func copiedHeader(scratch, header []byte) ([]byte, error) {
	const (
		copiedBit  = 0x80
		endOfList  = 0
		noOption   = 1
		wordLength = 4
	)
	options := header[ipv4HeaderLen:]
	copied := append(scratch, header[:ipv4HeaderLen]...)
	for len(options) > 0 && options[0] != endOfList {
		n := 1
		if options[0] != noOption {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				return nil, errUnfragmentable
			}
			n = int(options[1])
		}
		if options[0]&copiedBit != 0 { // promise: copied-options-only
			copied = append(copied, options[:n]...)
		}
		options = options[n:]
	}
	for len(copied)%wordLength != 0 {
		copied = append(copied, endOfList)
	}
	copied[0] = 4<<4 | byte(len(copied)/wordLength)
	return copied, nil
}
