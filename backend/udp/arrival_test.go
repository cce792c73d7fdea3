package udp

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// uplinkIndex is the interface of the test tables' peers.
const uplinkIndex = 7

// allBy makes all hosts' datagrams arrive by some interfaces.
func allBy(indexes ...uint32) func([]netip.Addr) (map[netip.Addr][]uint32, error) {
	return func(hosts []netip.Addr) (map[netip.Addr][]uint32, error) {
		found := make(map[netip.Addr][]uint32)
		for _, h := range hosts {
			found[h] = indexes
		}
		return found, nil
	}
}

// A peer's datagram is admitted by the interfaces that routes to the peer name, and
// by no other. When the routes change, so do these.
func TestAdmitByInterface(t *testing.T) {
	table := testTable()
	p := newPacket("10.5.2.7", "10.5.1.7", 17, nil)
	outer := inet.RawOf(netip.MustParseAddr("192.0.2.2"))
	expect := func(when string, admits ...uint32) {
		t.Helper()
		want := map[uint32]bool{}
		for _, i := range admits {
			want[i] = true
		}
		for i := range uint32(10) {
			if _, why := table.admit(outer, i, p); (why == admitted) != want[i] || why != admitted && why != wrongInterface {
				t.Errorf("%s: interface %d gives %s", when, i, reasonNames[why])
			}
		}
	}
	expect("with one route", uplinkIndex)
	for _, change := range []struct {
		when    string
		indexes []uint32
	}{{"with two", []uint32{3, 5}}, {"with three", []uint32{2, 3, 9}}, {"with another one", []uint32{4}}, {"without", nil}} {
		table.interfacesTo = allBy(change.indexes...)
		if err := table.follow(); err != nil {
			t.Fatal(err)
		}
		expect(change.when, change.indexes...)
	}
	// A look that fails changes nothing; a host that comes then has none.
	table.interfacesTo = allBy(4)
	if err := table.follow(); err != nil {
		t.Fatal(err)
	}
	table.interfacesTo = func([]netip.Addr) (map[netip.Addr][]uint32, error) { return nil, errors.New("no") }
	if table.follow() == nil {
		t.Error("follow returns no error")
	}
	expect("after a failure", 4)
	table.apply([]subnet.Event{added(lease("10.5.9.0/24", "192.0.2.9"))})
	if _, why := table.admit(inet.RawOf(netip.MustParseAddr("192.0.2.9")), 4, newPacket("10.5.9.7", "10.5.1.7", 17, nil)); why != wrongInterface {
		t.Errorf("a host that came then: %s", reasonNames[why])
	}
}
