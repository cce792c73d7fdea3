// Package offload does in user space what a network card does in hardware: it
// cuts TCP and UDP super-packets into packets that fit the wire, and joins
// packets of a flow into super-packets.
//
//	TUN read ── vnet header + ≤ 64 KiB ──► Splitter ──► trains ──► UDP_SEGMENT
//	UDP_GRO ── packet, packet, packet … ──► Merger ──► vnet header + ≤ 64 KiB ──► TUN write
//
// A super-packet is an IPv4 packet whose payload belongs to several segments of
// one flow. A train is a run of whole packets of equal length, except that the
// last one may be shorter: what one sendmsg with UDP_SEGMENT carries.
//
// Payload is never copied. A train's buffers alternate between headers in the
// Splitter's scratch and payload in the caller's buffer; those of a super-packet
// lie all in the caller's buffer.
//
// The two are inverse to each other. Split and Merge again gives the same
// super-packet. Merge and Split again gives the same packets, byte for byte and
// in the same order, whatever they are: what cannot be restored exactly is not
// merged. (One field is exempt: see super.follows.) A corrupted packet is not
// merged, since splitting writes new checksums and would make it look sound.
//
// Nothing here trusts a length, keeps a goroutine, allocates per packet, or is
// safe for concurrent use.
package offload
