// Package virtio encodes struct virtio_net_hdr (linux/virtio_net.h), the header
// that a TUN device puts before each packet (IFF_VNET_HDR).
package virtio

import (
	"encoding/binary"
	"errors"
)

// HdrLen is the length of an encoded NetHdr in bytes. num_buffers is not part of it.
const HdrLen = 10

// FlagNeedsCsum is a bit of NetHdr.Flags: the checksum field holds the sum of
// the pseudo header. The sum from CsumStart to the end completes it.
const FlagNeedsCsum = 1

// Values of NetHdr.GSOType.
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDPL4 = 5 // datagrams of equal length, except for the last (USO)
	// GSOECN is a bit beside the type: the first segment carries CWR.
	GSOECN = 0x80
)

// NetHdr states what remains to be done to a packet: segmentation and the
// checksum. All offsets count from the packet's start.
//
// A NetHdr is no more trustworthy than its packet. The kernel sets HdrLen to
// the linear part of its buffer, which can be longer than the headers.
type NetHdr struct {
	Flags   uint8
	GSOType uint8
	// HdrLen is the length of all headers in bytes; a hint.
	HdrLen uint16
	// GSOSize is the payload of one segment in bytes.
	GSOSize uint16
	// CsumStart is where the sum begins. CsumOffset is where it goes, counted
	// from CsumStart.
	CsumStart, CsumOffset uint16
}

// ErrShort reports fewer than HdrLen bytes.
var ErrShort = errors.New("shorter than a vnet header")

// Decode reads h from the front of b; ErrShort if b is too short. A TUN's header
// has the machine's byte order unless TUNSETVNETLE or TUNSETVNETBE was called.
func (h *NetHdr) Decode(b []byte) error {
	if len(b) < HdrLen {
		return ErrShort
	}
	h.Flags, h.GSOType = b[0], b[1]
	h.HdrLen = binary.NativeEndian.Uint16(b[2:])
	h.GSOSize = binary.NativeEndian.Uint16(b[4:])
	h.CsumStart = binary.NativeEndian.Uint16(b[6:])
	h.CsumOffset = binary.NativeEndian.Uint16(b[8:])
	return nil
}

// Encode writes h to b.
func (h *NetHdr) Encode(b *[HdrLen]byte) {
	b[0], b[1] = h.Flags, h.GSOType
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}
