// Package probe measures the path to each peer through the overlay itself, so
// that a dead data path shows although the control plane works.
//
//	our subnet's .0 ──ICMP echo──► device, encapsulation, wire, decapsulation ──► peer subnet's .0
//	                ◄──echo reply──
//
// A probe is an ordinary ping (RFC 792), which the peer's kernel answers. The
// peer's daemon takes no part: in every version of flannel the device holds the
// first address of the subnet, or the bridge behind it holds the second. If a
// firewall drops pings, a peer is silent without harm. A peer that never answered
// may be such a one, so silence is reported and fails nothing.
//
// Small probes measure round trip and loss. Large ones, with DF, find the largest
// packet that passes. Both are paced: see pace.go.
package probe
