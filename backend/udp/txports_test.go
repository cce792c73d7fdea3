package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/coreos/flannel/subnet"
)

// A receiver's network card and sockets spread load by the outer source port. A flow
// has one port; many flows use all of them.
func TestFlowsSpreadOverSourcePorts(t *testing.T) {
	l := newLoop(t)
	server, err := l.host.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(itself, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	port := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	l.table.config.port = port
	l.table.apply([]subnet.Event{added(lease("10.5.2.0/24", itself.String()))})

	const flows, each = 64, 3
	to := netip.MustParseAddrPort("10.5.2.2:53")
	for i := range flows * each {
		from := netip.AddrPortFrom(nearEnd.Addr(), uint16(40000+i%flows))
		if err := l.out.send(udpRead(from, to, []byte{1}, 0)); err != nil {
			t.Fatal(err)
		}
		if err := l.out.flush(); err != nil {
			t.Fatal(err)
		}
	}
	outer := make(map[uint16]uint16) // by the inner source port
	ports := make(map[uint16]bool)
	buf := make([]byte, 100)
	for range flows * each {
		_, addr, err := server.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		from := addr.(*net.UDPAddr).AddrPort().Port()
		inner := binary.BigEndian.Uint16(buf[ipv4HeaderLen:])
		if before, seen := outer[inner]; seen && before != from {
			t.Errorf("flow from port %d leaves from ports %d and %d", inner, before, from)
		}
		outer[inner] = from
		ports[from] = true
	}
	if len(outer) != flows || len(ports) != txPorts {
		t.Errorf("%d flows leave from %d ports, want %d from %d", len(outer), len(ports), flows, txPorts)
	}
}
