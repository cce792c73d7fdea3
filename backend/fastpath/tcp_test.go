package fastpath

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/checksum"
)

// TestReset ends a connection by an RST after 3 GB that connection tracking has not seen.
// A rule drops what connection tracking calls invalid.
func TestReset(t *testing.T) {
	a, b := newRunning(t)
	a.nft("table ip user { chain forward { type filter hook forward priority filter; ct state invalid drop; tcp flags & rst == rst counter; }; }")
	s := warm(t, a, b)
	sequence := a.sequence(s)
	inject := a.injector()
	a.until("the RST passes", func() bool {
		s.exchange(1)
		inject(a.reset(s, b, sequence()+3<<30))
		return a.counted() > 0
	})
}

// sequence returns a function that returns the sequence number of the last packet that
// the host's container has sent on a connection.
func (h *host) sequence(s stream) func() uint32 {
	h.t.Helper()
	fd := h.packetSocket(h.container, "eth0", unix.ETH_P_ALL)
	own := uint16(s.from.LocalAddr().(*net.TCPAddr).Port)
	var last uint32
	return func() uint32 {
		h.t.Helper()
		frame := make([]byte, 1<<16)
		for {
			n, _, err := unix.Recvfrom(fd, frame, unix.MSG_DONTWAIT)
			if err != nil {
				return last
			}
			const protocol, source, number, end = 14 + 9, 14 + 20, 14 + 24, 14 + 40
			if n >= end && frame[protocol] == unix.IPPROTO_TCP && binary.BigEndian.Uint16(frame[source:]) == own {
				last = binary.BigEndian.Uint32(frame[number:])
			}
		}
	}
}

// reset is an RST of the connection from the host's container to the peer's.
func (h *host) reset(s stream, peer *host, sequence uint32) []byte {
	own, other := s.from.LocalAddr().(*net.TCPAddr).Port, s.from.RemoteAddr().(*net.TCPAddr).Port
	const offset, rst = 5 << 4, 4
	tcp := binary.BigEndian.AppendUint16(nil, uint16(own))
	tcp = binary.BigEndian.AppendUint16(tcp, uint16(other))
	tcp = binary.BigEndian.AppendUint32(tcp, sequence)
	tcp = append(tcp, 0, 0, 0, 0, offset, rst, 0, 0, 0, 0, 0, 0)
	pseudo := slices.Concat(h.addr().AsSlice(), peer.addr().AsSlice(), []byte{0, unix.IPPROTO_TCP, 0, byte(len(tcp))}, tcp)
	binary.BigEndian.PutUint16(tcp[16:], checksum.Finish(checksum.Add(0, pseudo)))
	return h.frame(peer, h.mac(h.Host, bridgeName), h.mac(h.container, "eth0"), unix.IPPROTO_TCP, tcp)
}
