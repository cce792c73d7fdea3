// Package hostroute compares the addresses of an overlay network with the
// addresses, routes and rules of the host that other programs made.
//
//	before a lease:  Networks ─► Conflict, Unusable
//	while it runs:   netlink ─► Checker ─► Resolver: RTM_GETROUTE for an address of each subnet
//
// The kernel takes the first rule whose table has a route, and of that table the
// route with the longest prefix. So a Docker network inside the overlay's range, or
// a table of a VPN before the main table, takes the packets for a peer.
package hostroute
