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
// Without a tunnel (direct), an uplink takes its place: an interface that routes to
// other hosts' subnets lead through. from_container sends to the neighbour there that
// is the route's gateway. Outer interfaces are the tunnel device or the uplinks.
//
// Glossary: the long way is that of a packet without this package. An entry is
// the record of a flow in connection tracking. A port is the host's end of a
// container's veth pair, in a bridge. The window is what connection tracking
// accepts as sequence numbers of TCP.
//
// # Which packets take the fast path
//
// A packet of TCP or UDP takes it if its flow has an entry, and the mark of
// the entry has the bit of the packet's direction ([Marks]). A rule of our own
// table, behind all others, sets that bit. A packet that a rule drops sets no
// bit. An entry that is deleted takes its bits along, and a change of the rules has
// the bits of all entries taken away. Rules of the bridge come behind that rule; so
// the last packet of the long way must have left by the port (left).
//
// All other packets take the long way: the first packets of a flow, TCP's SYN,
// FIN and RST, fragments, IP options, a TTL of 1, packets that are larger than
// the route's MTU, flows that the host translates, and flows with a helper,
// accounting or a timeout policy in connection tracking.
//
// The route and the neighbour are the kernel's, looked up again in each jiffy. The
// addresses of containers come from the kernel's neighbours and forwarding
// entries, which user space follows. If user space is gone for [lifetime], all
// packets take the long way.
//
// # TCP windows
//
// Connection tracking does not see the packets of the fast path, and would
// call a later FIN invalid. So user space turns off its check of the window for
// the flow (IP_CT_TCP_FLAG_BE_LIBERAL of the entry), and only then TCP takes the
// fast path. It has the entry forget the last acknowledgement, too, with which
// connection tracking compares an RST.
package fastpath

//go:generate go tool bpf2go -go-package fastpath -target bpfel -type outcome -cflags "-O2 -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" fastpath fastpath.c
