// Package udpsock moves UDP datagrams over IPv4 in batches, without allocating.
//
//	Sender:    datagrams ─► messages, up to 64 datagrams to one peer each (UDP_SEGMENT)
//	                        └─► one sendmmsg for all messages
//	Receiver:  one recvmmsg ─► messages, each of datagrams of one sender (UDP_GRO)
//
// A message is what the kernel handles as one: it goes through the network
// stack once, whatever the number of datagrams in it. They have equal length,
// except that the last one may be shorter.
//
// Every offload can be missing. Features tells why; a Sender then sends the
// same datagrams one by one, with the same bytes on the wire.
package udpsock
