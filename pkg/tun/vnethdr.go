package tun

import (
	"encoding/binary"
	"errors"
)

// VnetHdrLen is the length, in bytes, of the header in front of every packet:
// struct virtio_net_hdr without num_buffers (linux/virtio_net.h).
const VnetHdrLen = 10

// Bits of VnetHdr.Flags (linux/virtio_net.h).
const (
	// FlagNeedsCsum: the checksum field holds the sum of the pseudo header;
	// the sum from CsumStart to the end completes it.
	FlagNeedsCsum = 1
)

// Values of VnetHdr.GSOType (linux/virtio_net.h).
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3 // one datagram, to be cut into IP fragments (UFO)
	GSOTCPv6 = 4
	GSOUDPL4 = 5 // many datagrams, of equal length except for the last (USO)
	// GSOECN is a bit beside the type: the first segment carries CWR.
	GSOECN = 0x80
)

// VnetHdr tells what is left to do to the packet behind it: cut it into
// segments, complete its checksum. All offsets count from the packet's start.
//
// Nothing in it may be trusted more than the packet. In particular the kernel
// sets HdrLen to the linear part of its buffer, which can be longer than the
// headers.
type VnetHdr struct {
	Flags   uint8
	GSOType uint8
	// HdrLen is the length of all headers; a hint.
	HdrLen uint16
	// GSOSize is the payload of one segment, in bytes.
	GSOSize uint16
	// CsumStart is where the sum begins, CsumOffset where it goes, from there.
	CsumStart, CsumOffset uint16
}

// ErrShortHeader: fewer bytes than a vnet header.
var ErrShortHeader = errors.New("shorter than a vnet header")

// Decode reads h from the front of b. A TUN's header has the machine's byte
// order unless TUNSETVNETLE or TUNSETVNETBE says otherwise.
func (h *VnetHdr) Decode(b []byte) error {
	if len(b) < VnetHdrLen {
		return ErrShortHeader
	}
	h.Flags, h.GSOType = b[0], b[1]
	h.HdrLen = binary.NativeEndian.Uint16(b[2:])
	h.GSOSize = binary.NativeEndian.Uint16(b[4:])
	h.CsumStart = binary.NativeEndian.Uint16(b[6:])
	h.CsumOffset = binary.NativeEndian.Uint16(b[8:])
	return nil
}

// Encode writes h to b.
func (h *VnetHdr) Encode(b *[VnetHdrLen]byte) {
	b[0], b[1] = h.Flags, h.GSOType
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}
