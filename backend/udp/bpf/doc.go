// Package bpf is the udp backend's data path inside the kernel. eBPF programs encapsulate
// and decapsulate packets in the wire format of the other data paths. They leave the
// packets that they do not handle to those.
//
//	container → bridge → route → flannel0 ─►[encap]─► kernel's route to the peer
//	                                          └ not handled ► reader of the TUN
//	                                          └ super-packet to be cut ► segmenter ►[encap_l2]
//	container ← bridge ← route ← flannel0 ◄─[decap]◄─ GRO ◄─[decap_xdp]◄─ uplink
//	                                ▲         └ not handled ► UDP socket
//	                                │         └ segment, if there is no decap_xdp ► segmenter
//	                                └─────────────────[joined]◄─ GRO of the segmenter ◄─┘
//
// encap and decap (decap_l2 or decap_l3) are attached with tcx. Before Linux 6.6, which
// has no tcx, they are filters of tc. decap_xdp is attached with XDP in the driver where
// it is useful and possible; see [Path.XDPRefusals]. Without it, decap does its work.
//
// Glossary: a peer is a subnet and the host that holds it; an uplink is an
// interface that datagrams arrive by; a super-packet is a train of TCP segments
// that is one packet until the hardware cuts it (GSO).
//
// The path serves hosts that run it too ([Peer].Kernel), for two reasons that
// flannel.c explains at encap. Traffic from and to other hosts goes through TUN and
// socket as a whole, so that no flow is reordered. Packets are sent by the
// kernel's routes and neighbours, looked up again in each jiffy.
//
// The segmenter is a veth pair beside the TUN device, such as flannel0-seg and
// flannel0-enc. The programs wrap super-packets of TCP whole. They cannot wrap those of
// UDP or of a container's own tunnel. The kernel cuts these at the segmenter first.
// Unlike the TUN's reader, the segmenter keeps the sending socket waiting.
//
// In the other direction, the segmenter joins segments of TCP that arrive one by one
// at an uplink without decap_xdp (Linux 5.13). All packets of TCP of such a flow take
// this way, so they keep their order. A super-packet ends that, and can overtake some.
//
// With [Config].PinDir the kernel keeps programs, peers and counters after the
// process ends. The next process takes them over without losing a packet ([Load]).
// That needs a persistent device, which the caller creates.
//
// Packets and datagrams are of either family, in any mix. Before Linux 6.3 the programs
// do not unwrap a packet of another family than the datagram's ([UnwrapsMixed]). What the
// segmenter cuts of a container's own tunnel is wrapped in datagrams of its own family.
// For datagrams of the other family the TUN's reader gets it: the kernel learns of a new
// family only together with the mark of a tunnel.
//
// Super-packets arrive whole only from virtual links (veth, virtio), still marked as a
// tunnel's. Up to Linux 6.18 a bridge cuts those with the mark. The program `whole` of
// backend/fastpath redirects them past the bridge.
//
// Packets of the kernel path differ from those of the user-space paths. They do not pass
// netfilter on the uplink. tcpdump on the device does not show sent ones, and the device's
// statistics do not count them. With decap_xdp, tcpdump on the uplink shows the inner
// packets. A route's MTU counts only if forwarding heeds it: if it is locked, or
// net.ipv4.ip_forward_use_pmtu is 1.
package bpf

//go:generate go tool bpf2go -go-package bpf -target bpfel -type reason -cflags "-O2 -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" flannel flannel.c
