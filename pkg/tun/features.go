package tun

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Features says which offloads the device has: nil where one is on, else the
// reason why it is off.
type Features struct {
	// Checksum: packets read may lack their transport checksum.
	Checksum error
	// TSO4, TSO6, USO: TCP and UDP super-packets are read.
	TSO4, TSO6, USO error
	// WriteTSO, WriteUSO: the kernel takes TCP and UDP super-packets.
	WriteTSO, WriteUSO error
}

// ErrSwitchedOff is the reason of an offload that the configuration excludes.
var ErrSwitchedOff = errors.New("switched off by configuration")

// levels are the sets of offloads to ask for, the most first. The kernel takes
// a set as a whole or not at all (set_offload, drivers/net/tun.c); USO4 and
// USO6 are known since Linux 6.2 and only together.
var levels = []uint{
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4,
	unix.TUN_F_CSUM,
	0,
}

// setOffloads turns on as much as the kernel has and reports what that is.
func setOffloads(fd int, none bool) Features {
	why := ErrSwitchedOff
	var on uint
	for _, set := range levels {
		if none && set != 0 {
			continue
		}
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(set)); err != nil {
			why = fmt.Errorf("TUNSETOFFLOAD %#x: %w", set, err)
			continue
		}
		on = set
		break
	}
	reason := func(bit uint) error {
		if on&bit != 0 {
			return nil
		}
		return why
	}
	f := Features{
		Checksum: reason(unix.TUN_F_CSUM),
		TSO4:     reason(unix.TUN_F_TSO4),
		TSO6:     reason(unix.TUN_F_TSO6),
		USO:      reason(unix.TUN_F_USO4),
		WriteTSO: ErrSwitchedOff,
		WriteUSO: ErrSwitchedOff,
	}
	if !none {
		f.WriteTSO = probeWrite(fd, GSOTCPv4)
		f.WriteUSO = probeWrite(fd, GSOUDPL4)
	}
	return f
}

// probeWrite reports whether the kernel would take a super-packet.
//
// The writing of valid ones fails with EINVAL on kernels that have
// e269d79c7d35 ("net: missing check virtio") without 89add40066f9 ("net: drop
// bad gso csum_start and offset in virtio_net_hdr"), 6.6.44 among them, and on
// kernels before 6.2 for UDP. TUNSETOFFLOAD does not tell. So one is written,
// while the device is still down: the kernel looks at the header first
// (virtio_net_hdr_to_skb), and at the device's state afterwards, which makes
// it answer EIO where the header is good. The packet goes nowhere; and were the
// device up, because it persisted, the source address would be a martian.
func probeWrite(fd int, gsoType uint8) error {
	const payload, segment = 32, 16
	pkt := make([]byte, VnetHdrLen+20+20+payload)
	ip := pkt[VnetHdrLen:]
	h := VnetHdr{Flags: FlagNeedsCsum, GSOType: gsoType, GSOSize: segment, CsumStart: 20}
	ip[0] = 4<<4 | 5
	switch gsoType {
	case GSOTCPv4:
		h.HdrLen, h.CsumOffset = 40, 16
		ip[9] = unix.IPPROTO_TCP
		ip[20+12] = 5 << 4
		ip[20+13] = 0x10 // ACK
	case GSOUDPL4:
		pkt = pkt[:len(pkt)-12]
		h.HdrLen, h.CsumOffset = 28, 6
		ip[9] = unix.IPPROTO_UDP
		ip[20+5] = 8 + payload // length
	}
	ip[3] = byte(len(pkt) - VnetHdrLen)
	copy(ip[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	h.Encode((*[VnetHdrLen]byte)(pkt))
	_, err := unix.Write(fd, pkt)
	if err == nil || errors.Is(err, unix.EIO) {
		return nil
	}
	return fmt.Errorf("write a super-packet of GSO type %d: %w", gsoType, err)
}
