// Package netnstest makes hosts on one machine: network namespaces that veth pairs
// and bridges connect, and in which real programs run.
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
// A thread has a network namespace, and a goroutine moves between threads. So
// [Host.Do] locks the goroutine to its thread before it enters a namespace, and
// unlocks it after it has left. If leaving fails, the goroutine stays locked, and
// the thread ends with it: no other goroutine runs in the wrong namespace. A
// socket, process or TUN that is opened inside stays in the namespace and may be
// used from anywhere. A goroutine that is started inside runs outside.
//
// Namespaces have names below /run/netns, so that "ip netns exec" works on
// them. The names contain the id and start time of the process that made them, so
// two runs never collide, and [New] removes the leftovers of runs that were killed.
//
// A test passes its *testing.T as [Scope], another program a [Program].
package netnstest
