package bpf

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A flow leaves the kernel path by its own packets only. One container sends small
// trains (UDP_SEGMENT), which the reader gets, in as many flows as it can; the flows
// of others stay in the kernel.
func TestOthersFlowsStay(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	a.withoutSegmenter()
	in := listenInner(b)
	var declined int // guarded by a.mu
	a.mu.Lock()
	a.oddOut = func([]byte) { declined++ }
	a.mu.Unlock()

	const trains, flows = 12000, 50
	for i := range trains {
		if !a.sendTrain(uint16(20000+i), b.inner()) {
			netnstest.UncheckedSegment.Skip(t, unix.EIO)
		}
	}
	for i := range flows {
		a.say(netip.AddrPortFrom(a.inner(), uint16(40000+i)), b.inner(), 0, "other flow")
	}
	for range flows {
		in.receive(t)
	}
	if n := a.statsOf(b.subnet).TxPackets; n != flows {
		t.Errorf("the kernel path sent %d packets, want the %d of the other flows", n, flows)
	}
}

// sendTrain sends two datagrams of a flow in one packet. It returns false if the kernel
// refuses trains.
func (h *host) sendTrain(port uint16, to netip.Addr) bool {
	h.t.Helper()
	p, err := h.ListenPacket(h.t.Context(), "udp", netip.AddrPortFrom(h.inner(), port).String())
	h.must(err)
	defer p.Close()
	_, _, err = p.(msgWriter).WriteMsgUDPAddrPort(make([]byte, 200), trainControl(100), netip.AddrPortFrom(to, echoPort))
	if refusesTrains(err) {
		return false
	}
	h.must(err)
	return true
}

type msgWriter interface {
	WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
}
