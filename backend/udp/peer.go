package udp

import (
	"net/netip"
	"sync/atomic"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/udpsock"
)

// peer is a host that holds a subnet. It is immutable except for its counters.
// When a lease changes, a new peer takes over the counters.
type peer struct {
	subnet netip.Prefix
	// addr is the destination of its packets, dest the same in the kernel's form.
	// outerSource is the source of packets from it.
	addr        netip.AddrPort
	dest        *udpsock.Dest
	outerSource uint32
	traffic     *traffic
}

// traffic counts a peer's packets. Each direction has its own cache line, since
// different goroutines write them.
type traffic struct {
	tx, rx counter
}

type counter struct {
	packets, bytes atomic.Uint64
	_              [48]byte // pads to a cache line of 64 bytes
}

// add counts one packet of n inner bytes.
func (c *counter) add(n int) { c.addAll(1, n) }

// addAll counts packets with a total of n inner bytes.
func (c *counter) addAll(packets, n int) {
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(n))
}

func (p *peer) stats() backend.PeerStats {
	return backend.PeerStats{
		Subnet: p.subnet, PublicIP: p.addr.Addr(),
		TxPackets: p.traffic.tx.packets.Load(), TxBytes: p.traffic.tx.bytes.Load(),
		RxPackets: p.traffic.rx.packets.Load(), RxBytes: p.traffic.rx.bytes.Load(),
	}
}
