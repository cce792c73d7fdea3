package udp

import (
	"encoding/binary"
	"errors"

	"github.com/coreos/flannel/pkg/checksum"
)

// errUnfragmentable: a packet whose options or offset are not to be trusted, or
// a path that carries less than a header and 8 bytes.
var errUnfragmentable = errors.New("packet cannot be fragmented")

// fragmenter cuts packets that are larger than the path to the peer (RFC 791,
// section 3.2). The outer datagram is never fragmented: a receiver would have
// to put it together before it knows whether it wants it, and most networks
// drop fragments of UDP. One goroutine uses it.
type fragmenter struct {
	scratch [maxPacket]byte
	header  [maxHeader]byte
}

// each calls send with the fragments of p, a well-formed packet without DF, of
// at most mtu bytes each, in order, until one fails. A fragment is valid until
// send returns. A packet that fits is one "fragment", as it is.
func (f *fragmenter) each(p ipv4Packet, mtu int, send func(ipv4Packet) error) error {
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
	if offset+len(payload) > maxPacket {
		return errUnfragmentable // beyond the largest packet, as no sender means it
	}
	for at, header := 0, first; at < len(payload); header = copied {
		n := min(len(payload)-at, (mtu-len(header))&^7) // offsets are in units of 8 bytes
		if n <= 0 {
			return errUnfragmentable
		}
		fragment := ipv4Packet(f.scratch[:len(header)+n])
		copy(fragment, header)
		copy(fragment[len(header):], payload[at:])
		flags := p.flags()&^offsetMask | uint16((offset+at)/8)
		if at+n < len(payload) {
			flags |= flagMF
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

// copiedHeader appends to scratch the header of all fragments but the first: of
// the options, it has those alone that say so by their "copied" bit (RFC 791,
// section 3.1).
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
		if options[0]&copiedBit != 0 {
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
