package rtnl

import "testing"

const many = 10_000

// BenchmarkFirstPass programs 10,000 peers: as many routes, neighbours and
// forwarding entries. Nearly all of it is the kernel's own search for a next hop
// to share: it looks through those of the same device one by one
// (net/ipv4/fib_semantics.c, fib_find_info).
func BenchmarkFirstPass(b *testing.B) {
	host := newBench(b)
	all := peers(0, many)
	for b.Loop() {
		b.StopTimer()
		k := host.reconciler(config())
		host.check(pass(k)) // removes what the last round made
		host.replace(k, all)
		b.StartTimer()
		host.check(pass(k))
	}
}

// BenchmarkIdlePass looks at 10,000 peers and finds nothing to do.
func BenchmarkIdlePass(b *testing.B) {
	host := newBench(b)
	k := host.reconciler(config())
	host.exchange(k, State{}, peers(0, many))
	host.check(pass(k))
	for b.Loop() {
		host.check(pass(k))
	}
}

// BenchmarkChange moves one peer among 10,000.
func BenchmarkChange(b *testing.B) {
	host := newBench(b)
	k := host.reconciler(config())
	host.exchange(k, State{}, peers(0, many))
	host.check(pass(k))
	here, there := peer(5), peer(5)
	there.Neighs[1].IP = there.Neighs[1].IP.Next()
	for b.Loop() {
		host.exchange(k, here, there)
		here, there = there, here
	}
}
