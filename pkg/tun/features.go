package tun

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/tun/virtio"
)

// Features reports the device's offloads: nil for one that is on, else the
// reason why it is off.
type Features struct {
	// Checksum: packets read may lack their transport checksum.
	Checksum error
	// TSO4, TSO6, USO: reads return TCP and UDP super-packets.
	TSO4, TSO6, USO error
	// WriteTSO4, WriteTSO6, WriteUSO: the kernel takes TCP and UDP super-packets.
	WriteTSO4, WriteTSO6, WriteUSO error
}

// offloadSets are the sets of offloads to try, the largest first. The kernel
// takes a set as a whole or not at all (set_offload, drivers/net/tun.c). Linux
// has USO4 and USO6 since 6.2, and only together.
var offloadSets = []uint{
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4,
	unix.TUN_F_CSUM,
	0,
}

// setOffloads turns on the largest set that the kernel takes.
func setOffloads(fd int) Features {
	var on uint
	var refusal error
	for _, set := range offloadSets {
		err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(set))
		if err == nil {
			on = set
			break
		}
		refusal = fmt.Errorf("TUNSETOFFLOAD %#x: %w", set, err)
	}
	reason := func(bit uint) error {
		if on&bit != 0 {
			return nil
		}
		return refusal
	}
	f := Features{
		Checksum:  reason(unix.TUN_F_CSUM),
		TSO4:      reason(unix.TUN_F_TSO4),
		TSO6:      reason(unix.TUN_F_TSO6),
		USO:       reason(unix.TUN_F_USO4),
		WriteTSO4: explainWrite(probeWrite(fd, virtio.GSOTCPv4)),
		WriteTSO6: explainWrite(probeWrite(fd, virtio.GSOTCPv6)),
	}
	if uso := probeWrite(fd, virtio.GSOUDPL4); f.USO != nil && uso != nil {
		f.USO, f.WriteUSO = needsRelease("6.2", f.USO), needsRelease("6.2", uso)
	} else {
		f.WriteUSO = explainWrite(uso)
	}
	return f
}

// explainWrite names the fault of a kernel that refuses a valid super-packet; see
// probeWrite.
func explainWrite(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("this kernel refuses valid super-packets, as 6.6.44 does; newer stable releases take them: %w", err)
	}
	return err
}

func needsRelease(release string, err error) error {
	return fmt.Errorf("needs Linux %s or newer: %w", release, err)
}

// probeWrite returns nil if the kernel takes super-packets of a GSO type.
//
// TUNSETOFFLOAD does not show this. Writes of valid super-packets fail with
// EINVAL on kernels with e269d79c7d35 ("net: missing check virtio") but without
// 89add40066f9 ("net: drop bad gso csum_start and offset in virtio_net_hdr"),
// such as 6.6.44. UDP fails before 6.2.
//
// So probeWrite writes one while the device is down. The kernel checks the
// header first (virtio_net_hdr_to_skb), then the device's state, and answers EIO
// if the header is good. The packet goes nowhere. If the device persisted and is
// up, the kernel drops the packet for its martian source.
func probeWrite(fd int, gsoType uint8) error {
	h, ip := probePacket(gsoType)
	pkt := append(make([]byte, virtio.HdrLen), ip...)
	h.Encode((*[virtio.HdrLen]byte)(pkt))
	_, err := unix.Write(fd, pkt)
	if err == nil || errors.Is(err, unix.EIO) {
		return nil
	}
	return fmt.Errorf("write super-packet of GSO type %d: %w", gsoType, err)
}

// probePacket returns a super-packet of two segments between loopback addresses.
func probePacket(gsoType uint8) (virtio.NetHdr, []byte) {
	const payload, segment = 32, 16
	h := virtio.NetHdr{Flags: virtio.FlagNeedsCsum, GSOType: gsoType, GSOSize: segment}
	l4, proto := make([]byte, 20, 20+payload), byte(unix.IPPROTO_TCP)
	l4[12] = 5 << 4
	l4[13] = 0x10 // ACK
	h.CsumOffset = 16
	if gsoType == virtio.GSOUDPL4 {
		l4, proto = l4[:8], unix.IPPROTO_UDP
		clear(l4)
		l4[5] = 8 + payload // length
		h.CsumOffset = 6
	}
	headers := len(l4)
	l4 = l4[:headers+payload]
	var ip []byte
	if gsoType == virtio.GSOTCPv6 {
		ip = make([]byte, 40)
		ip[0], ip[5], ip[6] = 6<<4, byte(len(l4)), proto
		ip[8+15], ip[24+15] = 1, 1
	} else {
		ip = make([]byte, 20)
		ip[0], ip[3], ip[9] = 4<<4|5, byte(20+len(l4)), proto
		copy(ip[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	}
	h.CsumStart, h.HdrLen = uint16(len(ip)), uint16(len(ip)+headers)
	return h, append(ip, l4...)
}
