// Package netnstest makes hosts on one machine: network namespaces, wired
// together by veth pairs and bridges, in which real programs run.
//
//	           ┌──────────── switch namespace ────────────┐
//	           │  lab0, bridge, 192.168.77.254/24 (router)│
//	           └──port1──────────port2──────────port3─────┘
//	               │veth           │              │
//	┌─ host "a" ───┴───────┐ ┌─ "b" ┴───┐   ┌─ "c" ┴───┐
//	│ eth0 192.168.77.1/24 │ │   .2     │   │   .3     │
//	│ docker0 10.5.72.1/24 │ └──────────┘   └──────────┘
//	└───┬──────────────────┘
//	    │veth
//	┌─ container ──────────┐
//	│ eth0 10.5.72.2/24    │
//	└──────────────────────┘
//
// A network namespace belongs to a thread, and a goroutine moves between
// threads. So whoever enters a namespace locks the goroutine to its thread
// first, leaves the namespace before unlocking, and keeps the lock where
// leaving fails: the runtime then ends the thread with the goroutine, and no
// other goroutine wakes up in a strange network. [Host.Do] is the only place
// that does this. What is opened inside (a socket, a process, a TUN) stays in
// the namespace and may be used from anywhere; goroutines started inside are
// outside.
//
// Namespaces have names below /run/netns, so that "ip netns exec" works on
// them. The names carry the id and start time of the process that made them:
// two runs never meet, and [New] removes what runs that were killed have left.
//
// Tests and other programs use it alike; the latter give their own [Scope].
package netnstest
