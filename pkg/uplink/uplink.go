// Package uplink finds the interface that encapsulated packets leave by.
//
// The operator names it, describes it, or leaves it to the default route. An
// interface that is not ready yet (no default route, no address, link down) is
// a thing to wait for: at boot the daemon often starts before DHCP is done. A
// wish that no wait can fulfil is an error at once.
package uplink

import "net/netip"

// Uplink is a network interface and the address of it that we use.
type Uplink struct {
	// Index and Name are the kernel's.
	Index int
	Name  string
	// MTU is the interface's, in bytes.
	MTU int
	// Addr is the source address of what we send.
	Addr netip.Addr
	// Reason says, for the log, why this interface was chosen.
	Reason string
}
