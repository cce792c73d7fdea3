package udp

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// Packets pass while peers come, move and go, and while routes change. What admit
// accepts is right at each time, and a peer that stays is always known.
func TestTableConcurrently(t *testing.T) {
	table := testTable()
	stays := lease("10.5.200.0/24", "192.0.2.200")
	table.apply([]subnet.Event{added(stays)})
	const rounds, readers = 2000, 4
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			outer := []inet.Raw{inet.RawOf(netip.MustParseAddr("192.0.2.2")), inet.RawOf(netip.MustParseAddr("192.0.2.22"))}
			moves, always := newPacket("10.5.2.7", "10.5.1.7", 17, nil), newPacket("10.5.200.7", "10.5.1.7", 17, nil)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				from := outer[i%2]
				peer, why := table.admit(from, uplinkIndex, moves)
				if (peer != nil) != (why == admitted) || peer != nil && (peer.sources[0].addr != from || peer.subnet != netip.MustParsePrefix("10.5.2.0/24")) {
					t.Errorf("from %x: %+v, %s", from, peer, reasonNames[why])
					return
				}
				if _, why := table.admit(inet.RawOf(stays.Attrs.PublicIP), uplinkIndex, always); why != admitted {
					t.Errorf("the peer that stays: %s", reasonNames[why])
					return
				}
				if p := table.lookup(inet.IPv4, inet.RawOf(stays.Subnet.Addr())); p == nil || p.subnet != stays.Subnet {
					t.Errorf("lookup of the peer that stays: %+v", p)
					return
				}
				table.stats()
			}
		})
	}
	for i := range rounds {
		moved := lease("10.5.2.0/24", []string{"192.0.2.2", "192.0.2.22"}[i%2])
		table.apply([]subnet.Event{added(moved), added(lease("10.5.9.0/24", "192.0.2.9"))})
		table.apply([]subnet.Event{removed("10.5.9.0/24")})
		if i%10 == 0 {
			table.apply([]subnet.Event{removed("10.5.2.0/24")})
		}
		if err := table.follow(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}
