// Package rtnl keeps the kernel's routes, neighbours and forwarding entries as a
// backend desires them. It undoes the changes of other programs, flapping links
// and restarts.
//
//	backend ──Reset, Update──► desired ──┐
//	                                     ├─► difference ──batches──► kernel
//	kernel ──────────dump─────► have ────┘                             │
//	   ▲                                                               │
//	   └──── pass ◄──── reconcile.Loop ◄──── announcements ◄───────────┘
//
// Glossary: a route leads to a peer's subnet. A neighbour gives the link-layer
// address of a peer's tunnel end, in place of ARP. A forwarding entry (FDB) gives
// the host behind such an address. A pass is one comparison of all that is
// desired with all that the kernel has. A [Reconciler] serves one network.
//
// These entries are ours, and may be changed and deleted:
//
//   - routes with the protocol number [Protocol] into the network or through the
//     backend's own device, except those into the tunnel of another flannel.
//     Blackholes belong to the Reconciler with Config.Blackholes, and all others to the
//     one without;
//   - permanent neighbours and permanent forwarding entries on that device.
//
// All others stay. If another program's route is in the place of one of ours, it
// serves if it is the same. Otherwise ours is refused: a [Refusal] concerns one peer
// only.
//
// Links and addresses go through github.com/vishvananda/netlink. The three tables
// go through a socket of our own: that library waits for an answer to each entry,
// and a host with ten thousand peers has thirty thousand.
package rtnl

// Protocol is the protocol number of our routes (rtm_protocol, rtnetlink(7)).
// contrib/rt_protos.d/flannel.conf gives it a name for ip(8). Programs may choose
// numbers above RTPROT_STATIC (4).
const Protocol = 85
