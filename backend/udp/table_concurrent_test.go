package udp

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/coreos/flannel/subnet"
)

// Packets pass while peers come, move and go, and while routes change. What admit
// accepts is right at each time, and a peer that stays is always known.
func TestTableConcurrently(t *testing.T) {
	table := testTable()
	stays := lease("10.5.200.0/24", "192.0.2.200")
	table.apply([]subnet.Event{added(stays)}, DefaultPort)
	const rounds, readers = 2000, 4
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			outer := []uint32{be32(netip.MustParseAddr("192.0.2.2")), be32(netip.MustParseAddr("192.0.2.22"))}
			moves, always := packet("10.5.2.7", "10.5.1.7", 17, nil), packet("10.5.200.7", "10.5.1.7", 17, nil)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				from := outer[i%2]
				peer, why := table.admit(from, uplinkIndex, moves)
				if (peer != nil) != (why == admitted) || peer != nil && (peer.outerSource != from || peer.subnet != netip.MustParsePrefix("10.5.2.0/24")) {
					t.Errorf("from %#x: %+v, %s", from, peer, reasonNames[why])
					return
				}
				if _, why := table.admit(be32(stays.Attrs.PublicIP), uplinkIndex, always); why != admitted {
					t.Errorf("the peer that stays: %s", reasonNames[why])
					return
				}
				if p := table.lookup(be32(stays.Subnet.Addr())); p == nil || p.subnet != stays.Subnet {
					t.Errorf("lookup of the peer that stays: %+v", p)
					return
				}
				table.stats()
			}
		})
	}
	for i := range rounds {
		moved := lease("10.5.2.0/24", []string{"192.0.2.2", "192.0.2.22"}[i%2])
		table.apply([]subnet.Event{added(moved), added(lease("10.5.9.0/24", "192.0.2.9"))}, DefaultPort)
		table.apply([]subnet.Event{removed("10.5.9.0/24")}, DefaultPort)
		if i%10 == 0 {
			table.apply([]subnet.Event{removed("10.5.2.0/24")}, DefaultPort)
		}
		if err := table.follow(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}
