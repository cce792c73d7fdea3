// Package rtnl keeps the kernel's routes, neighbours and forwarding entries as
// a backend wants them, whatever other programs, flapping links and restarts
// do to them.
//
//	backend ───Set──► desired ───┐
//	                             ├─► difference ──batches──► kernel
//	kernel ────dump─────► have ──┘                             │
//	   ▲                                                       │
//	   └──── pass ◄── notifications, slow timer, retry ◄───────┘
//
// Glossary: a route leads to a peer's subnet; a neighbour gives the link-layer
// address of a peer's tunnel end (ARP's place); a forwarding entry (FDB) gives
// the host behind such an address. A pass is one comparison of all that is
// desired with all that the kernel has. A Keeper does it all for one network.
//
// What is ours, and so may be changed and deleted:
//
//   - routes into the network with the protocol number [Protocol], and those
//     through the backend's own device;
//   - permanent neighbours and permanent forwarding entries on that device.
//
// All else is left alone, and so is a route of another program that stands
// where one of ours should be: that is a [Refusal], for its peer only.
//
// Links and addresses go through github.com/vishvananda/netlink. The three
// tables go through a socket of our own, since that library waits for an
// answer to each entry, and a host with ten thousand peers has thirty thousand.
package rtnl

// Protocol is the rtnetlink protocol number that our routes carry
// (rtm_protocol, rtnetlink(7)); contrib/rt_protos.d/flannel.conf gives it a
// name for ip(8). Numbers above RTPROT_STATIC (4) are for programs to choose.
const Protocol = 85
