// Package offloadprobe finds faults of offloads on the path to each peer. A network
// card, driver or hypervisor with such a fault loses the packets of containers while
// pings pass.
//
//	Prober ──probe: a shape of packets──► device, encapsulation, wire ──► responder
//	       ◄──────────receipt: one small packet for each that arrived────
//
// The responder runs in the peer's daemon. Each host probes the direction from itself
// to the peer. A receipt also carries what the peer's probes have found in the other
// direction.
//
// # Shapes
//
// A shape is a set of packets that uses some offloads and no others. The kernel
// computes the checksum of a plain datagram. With an offload it leaves the checksum
// to the device (CHECKSUM_PARTIAL). Or it sends a super-packet that the device
// segments (UDP_SEGMENT of udp(7), TSO for TCP).
//
// # Checks, diagnoses and faults
//
// A check is a probe with super-packets of UDP or TCP. It passes only if everything
// works, so a healthy path needs nothing else. If several checks in a row fail, a
// diagnosis sends all shapes in rounds. It compares each shape with small plain
// packets of the same rounds. So loss, reordering and delay are no fault. The
// smallest shape that does not arrive names the layer of the fault.
package offloadprobe
