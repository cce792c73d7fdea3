// Package fastpath carries packets between a container and the tunnel device
// without the bridge, netfilter and routing of the host.
//
//	container ─veth─►[from_container]────────────────────► tunnel ─► wire
//	               └ long way ► bridge ► rules ► route ► rules ┘
//
//	container ◄─veth──────────────────────────[to_container]◄─ tunnel ◄─ wire
//	    veth ◄[left]◄ bridge ◄ rules ◄ route ◄ long way ┘
//
// The programs are attached with tcx, or by filters of tc on a kernel without tcx
// (before Linux 6.6). They change nothing of the wire format: the tunnel device wraps
// and unwraps as for other packets. A fourth program, whole, has super-packets of the
// long way pass by a device that would cut them.
//
// Without a tunnel (direct), an uplink takes its place: an interface of a route to
// another host's subnet. from_container sends to the gateway of the route. Outer
// interfaces are the tunnel device or the uplinks.
//
// Glossary: the long way is that of a packet without this package. An entry is
// the record of a flow in connection tracking. A port is the host's end of a
// container's veth pair, in a bridge. The window is what connection tracking
// accepts as sequence numbers of TCP.
//
// # Which packets take the fast path
//
// A packet of TCP or UDP takes it if the mark of its flow's entry has the bit of the
// packet's direction ([Marks]). A rule of our own table, behind all others, sets that
// bit. A packet that a rule drops sets no bit. The bits of a deleted entry are gone. A
// change of the rules clears the bits of all entries. Rules of the bridge come behind
// that rule; so the last packet of the long way must have left by the port (left).
//
// These packets take the long way:
//
//   - the first packets of a flow, and TCP's SYN, FIN and RST,
//   - fragments, packets with IP options or a TTL of 1, or larger than the route's MTU,
//   - those of flows that the host translates,
//   - those of flows with a helper, accounting or a timeout policy in connection tracking.
//
// The route and the neighbour are the kernel's, looked up again in each jiffy. The
// addresses of containers come from the kernel's neighbours and forwarding
// entries, which user space follows. If user space is gone for [lifetime], all
// packets take the long way.
//
// # TCP windows
//
// Connection tracking does not see the packets of the fast path. A later FIN would be
// invalid to it. So user space turns off the check of the window for the flow
// (IP_CT_TCP_FLAG_BE_LIBERAL of the entry). Only then TCP takes the fast path. User space
// also clears the last acknowledgement, with which connection tracking compares an RST.
package fastpath

//go:generate go tool bpf2go -go-package fastpath -target bpfel -type outcome -cflags "-O2 -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" fastpath fastpath.c
