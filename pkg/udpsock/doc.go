// Package udpsock sends and receives UDP datagrams over IPv4 or IPv6 in batches, without
// allocating.
//
//	Sender:    datagrams ─► messages, up to 64 datagrams to one peer each (UDP_SEGMENT)
//	                        └─► one sendmmsg for all messages
//	Receiver:  one recvmmsg ─► messages, each of datagrams of one sender (UDP_GRO)
//
// A message is the kernel's unit: it passes the network stack once, however many
// datagrams it has. Its datagrams have equal length; the last may be shorter.
//
// Any offload can be missing; Features gives the reason. A Sender then sends the
// datagrams one by one, with the same bytes on the wire.
package udpsock
