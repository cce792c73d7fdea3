// Package uplink finds the interface that encapsulated packets leave by.
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
