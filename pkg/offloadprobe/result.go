package offloadprobe

import (
	"net/netip"
	"time"
)

// Peer is a host to probe.
type Peer struct {
	// Subnet identifies it.
	Subnet netip.Prefix
	// Addr is that of its responder.
	Addr netip.AddrPort
}

// Fault is a fault of one direction. The zero Fault is none.
type Fault struct {
	Layer Layer
	// Since is the end of the diagnosis that found it, or the first receipt that has it.
	Since time.Time
}

// Result is what is known about the path to one peer.
type Result struct {
	// Tx is the fault of packets to the peer, Rx that of packets from the peer. The peer
	// finds Rx, and its receipts have it.
	Tx, Rx Fault
	// TxAt is when a check or a diagnosis has last confirmed Tx, and RxAt when a receipt has
	// last had Rx. A peer that does not answer confirms nothing.
	TxAt, RxAt time.Time
	// Known is true if Tx is the result of a check or a diagnosis. It is false for a
	// peer that has not answered yet.
	Known bool
	// Suspect is true without a fault to the peer if a check has failed, and other peers are
	// being diagnosed.
	Suspect bool
}

// Change is a change of a peer's result.
type Change struct {
	Peer netip.Prefix
	// Inbound is true for packets from the peer.
	Inbound bool
	// Was and Now are the layers of the faults, empty for none.
	Was, Now Layer
}
