// Package bpf is the udp backend's data path inside the kernel: eBPF
// programs wrap and unwrap packets in the wire format of the other data paths,
// and leave to those whatever they do not handle.
//
//	container → bridge → route → flannel0 ─►[out]─► kernel's route to the peer
//	                                          └ declined ► reader of the TUN
//	container ← bridge ← route ← flannel0 ◄─[in]◄─ GRO ◄─[early]◄─ uplink
//	                                          └ declined ► UDP socket
//
// The programs out and in are attached with tcx, early with XDP in the driver,
// where it is of use and can be had (see [Path.Late]); in does all of the work
// of early where that is not.
//
// Glossary: a peer is a subnet and the host that holds it; an uplink is an
// interface that datagrams arrive by; a super-packet is a train of TCP
// segments that travels as one packet until the hardware cuts it (GSO).
//
// The path is used towards hosts that run it too ([Peer].Kernel), for two
// reasons that the program out explains; traffic from and to all others goes
// the way of the TUN and the socket, as a whole, so that no flow is reordered.
// Routes and neighbours are the kernel's, asked for every packet.
//
// With [Config].PinDir the kernel keeps programs, peers and counters when the
// process ends; the next one takes them over ([Load]) without a packet lost.
// That needs a persistent device, which is the caller's.
//
// Super-packets come in whole from virtual links only (veth, virtio), still
// marked as a tunnel's. Where the kernel cannot take the mark off (Linux 6.18
// does not have BPF_F_ADJ_ROOM_DECAP_L4_UDP), it cuts them at a bridge. That
// costs a container about half of the throughput, and the host itself nothing.
//
// What others see differs from the user-space paths: packets in the kernel
// path do not pass netfilter on the uplink, are not seen by tcpdump on the
// device on their way out, and do not count in the device's statistics. Behind
// early, tcpdump on the uplink sees the inner packets. A route's MTU counts only
// where the kernel would heed it in forwarding: if it is locked, or
// net.ipv4.ip_forward_use_pmtu is 1.
package bpf

//go:generate go tool bpf2go -go-package bpf -target bpfel -type reason -cflags "-O2 -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" flannel flannel.c
