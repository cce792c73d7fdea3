// Package offload is segmentation and receive offload in user space: it cuts TCP
// and UDP super-packets into packets that fit the wire, and joins packets of a
// flow into super-packets.
//
//	TUN read ── vnet header + ≤ 64 KiB ──► Splitter ──► trains ──► UDP_SEGMENT
//	UDP_GRO ── packet, packet, packet … ──► Merger ──► vnet header + ≤ 64 KiB ──► TUN write
//
// A super-packet is an IP packet whose payload belongs to several segments of
// one flow. A train is a run of whole packets of equal length; the last one may
// be shorter. One sendmsg with UDP_SEGMENT carries a train.
//
// Payload is never copied. A train's buffers alternate between headers in the
// Splitter's scratch and payload in the caller's buffer. All buffers of a
// super-packet lie in the caller's buffer.
//
// Splitter and Merger are inverse. Split, then merge restores the super-packet.
// Merge, then split restores the packets, byte for byte and in order: a packet
// that a split would not restore is not merged. One field is exempt, see
// super.follows. A corrupted packet is not merged: a split writes new checksums,
// which would hide the corruption.
//
// Lengths in packets are checked before use. No type keeps a goroutine,
// allocates per packet, or is safe for concurrent use.
package offload
