package bpf

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestOrder sends one flow of single datagrams and trains (UDP_SEGMENT). Trains go
// through the segmenter, or without one to user space. If the flow used two ways at
// once, packets would overtake each other.
func TestOrder(t *testing.T) {
	eachFamilies(t, func(t *testing.T, f families) {
		t.Run("segmenter", func(t *testing.T) { testOrder(t, f, true) })
		t.Run("reader", func(t *testing.T) { testOrder(t, f, false) })
	})
}

func testOrder(t *testing.T, f families, segmenter bool) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	if !segmenter {
		a.withoutSegmenter()
	}
	in, write := listenInner(b), senderInner(a, b)
	const size, train, rounds, alone = 1000, 3, 300, 50
	var next uint64
	send := func(segments int, control []byte) {
		t.Helper()
		packets := make([]byte, segments*size)
		for i := range segments {
			next++
			binary.BigEndian.PutUint64(packets[i*size:], next)
		}
		write(packets, control)
	}
	var last uint64
	receive := func(packets int) {
		t.Helper()
		for range packets {
			_, text := in.receive(t)
			n := binary.BigEndian.Uint64([]byte(text))
			if n != last+1 {
				t.Errorf("packet %d came after %d", n, last)
			}
			last = n
		}
	}
	for range alone {
		send(1, nil)
		receive(1)
	}
	untouched(t, a, b)
	control := trainControl(size)
	for range rounds {
		send(train, control)
		send(1, nil)
		receive(train + 1)
	}
	if segmenter {
		untouched(t, a, b)
		return
	}
	if n := a.statsOf(b.subnet).TxPackets; n < alone || n > alone+rounds/10 {
		// A few more if the machine paused for a second.
		t.Errorf("the kernel path took %d packets of the flow, want the %d before the first train", n, alone)
	}
}

// senderInner returns a function that sends a datagram or a train from a to b. It skips
// the test if the kernel refuses trains.
func senderInner(a, b *host) func(packets, control []byte) {
	a.t.Helper()
	p, err := a.ListenPacket(a.t.Context(), "udp", netip.AddrPortFrom(a.inner(), echoPort).String())
	a.must(err)
	c := p.(*net.UDPConn)
	a.t.Cleanup(func() { a.must(c.Close()) })
	to := netip.AddrPortFrom(b.inner(), echoPort)
	return func(packets, control []byte) {
		a.t.Helper()
		_, _, err := c.WriteMsgUDPAddrPort(packets, control, to)
		if refusesTrains(err) {
			netnstest.UncheckedSegment.Skip(a.t, err)
		}
		a.must(err)
	}
}

// refusesTrains recognises the error of udp_send_skb (net/ipv4/udp.c) before Linux 6.11.
// The TUN device of these tests offers no checksum offload, unlike that of the daemon.
func refusesTrains(err error) bool { return errors.Is(err, unix.EIO) }

// trainControl returns the control message UDP_SEGMENT with a size: struct cmsghdr of
// 64-bit systems, cmsg(3).
func trainControl(size uint64) []byte {
	m := binary.NativeEndian.AppendUint64(nil, uint64(unix.CmsgLen(2)))
	m = binary.NativeEndian.AppendUint32(m, unix.IPPROTO_UDP)
	m = binary.NativeEndian.AppendUint32(m, unix.UDP_SEGMENT)
	return binary.NativeEndian.AppendUint64(m, size)
}
