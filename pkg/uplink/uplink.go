// Package uplink finds the interface that encapsulated packets leave by.
//
// The operator names the interface or describes it. The default is the interface of
// the default route. At boot the daemon often starts before DHCP has finished, so
// the package can wait for a default route, an address or a link. A choice that can
// never succeed is an error at once.
package uplink

import "net/netip"

// Uplink is a network interface and the address of it that we use.
type Uplink struct {
	// Index and Name are the kernel's.
	Index int
	Name  string
	// MTU is the interface's, in bytes.
	MTU int
	// Addr is the source address of encapsulated packets.
	Addr netip.Addr
	// Reason is the reason for the choice, for the log.
	Reason string
}
