// Package probe measures the way to each peer through the overlay itself, so
// that a data path which is dead while the control plane is well shows.
//
//	our subnet's .0 ──ICMP echo──► device, encapsulation, wire, decapsulation ──► peer subnet's .0
//	                ◄──echo reply──
//
// A probe is an ordinary ping (RFC 792), which the peer's kernel answers. It
// asks nothing of the program over there: the devices of this flannel and of
// all others before it hold the first address of their subnet, or the bridge
// behind them holds the next. A firewall that drops pings makes a peer silent
// without harm; whether a peer that has never answered is one of these cannot
// be told from here, which is why silence is reported and fails nothing.
//
// Small probes measure round trip and loss. Large ones, with the bit "don't
// fragment", find the largest packet that the way lets through. Both are paced:
// see pace.go.
package probe
