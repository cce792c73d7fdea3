package udpsock

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

const (
	// messageSize is the longest UDP payload, also of GRO.
	messageSize = 65535
	// stride spreads the buffers' beginnings over cache sets. Small datagrams
	// touch only these.
	stride = 1<<16 + 17*64
	// receiveControlLen is space for UDP_GRO (int), SO_RXQ_OVFL (uint32), and
	// IP_PKTINFO (three words) or IPV6_PKTINFO (five words).
	receiveControlLen = 96
)

// Message is one or more datagrams from one sender.
type Message struct {
	// Data are the payloads, one after the other. The caller may change them
	// until the next Receive, which overwrites them.
	Data []byte
	// SegLen is the length of each payload but the last, in bytes; at least 1.
	SegLen int
	// From is the sender's address.
	From inet.Raw
	// FromPort is the sender's port.
	FromPort uint16
	// To is the local address that it was sent to; zero without Config.PacketInfo.
	To inet.Raw
	// Interface is the index of the interface that it arrived by; 0 without
	// Config.PacketInfo.
	Interface uint32
}

// Receiver reads messages from a Conn. One goroutine uses it.
type Receiver struct {
	conn     *Conn
	msgs     []mmsghdr
	iovs     []unix.Iovec
	names    []name
	controls [][receiveControlLen]byte
	buffers  []byte

	n       int // messages of the last call
	limit   int // of messages, for the next system call
	errno   syscall.Errno
	do      func(fd uintptr) bool
	control func(level, kind int32, data []byte)
	segLen  int
	to      inet.Raw
	arrived uint32
}

// NewReceiver returns a Receiver that reads up to batch messages per system call.
// It reserves 64 KiB of address space for each. Only what messages fill becomes
// memory.
func NewReceiver(c *Conn, batch int) *Receiver {
	r := &Receiver{
		conn:     c,
		msgs:     make([]mmsghdr, batch),
		iovs:     make([]unix.Iovec, batch),
		names:    make([]name, batch),
		controls: make([][receiveControlLen]byte, batch),
		buffers:  make([]byte, batch*stride),
	}
	for i := range r.msgs {
		r.iovs[i].Base = &r.buffers[i*stride]
		r.iovs[i].SetLen(messageSize)
		h := &r.msgs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i][0]
		r.msgs[i].setName(&r.names[i])
	}
	r.n = batch
	r.do = r.receiveOnce
	r.control = r.readControl
	return r
}

// Receive waits for a message and returns the number of messages that arrived.
// Errors: os.ErrDeadlineExceeded after Wake, net.ErrClosed after Close, or the
// errno.
func (r *Receiver) Receive() (int, error) {
	// The kernel has overwritten these lengths. It writes the same length for
	// every address of a family.
	for i := range r.msgs[:r.n] {
		r.msgs[i].hdr.SetControllen(receiveControlLen)
	}
	r.n, r.errno, r.limit = 0, 0, len(r.msgs)
	if err := r.conn.raw.Read(r.do); err != nil {
		return 0, err
	}
	if r.errno != 0 {
		return 0, r.errno
	}
	return r.n, nil
}

func (r *Receiver) receiveOnce(fd uintptr) bool {
	for {
		n, errno := mmsg(unix.SYS_RECVMMSG, fd, r.msgs[:r.limit])
		switch errno {
		case 0:
			r.n = n
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			// The awaited message is handed over at once: to ask for a second
			// one delays it, and usually there is none.
			r.limit = 1
			return false
		default:
			r.errno = errno
		}
		return true
	}
}

// Message returns the i-th message of the last Receive.
func (r *Receiver) Message(i int) Message {
	m := &r.msgs[i]
	data := r.buffers[i*stride:][:m.len]
	r.segLen, r.to, r.arrived = 0, inet.Raw{}, 0
	eachControl(r.controls[i][:min(int(m.hdr.Controllen), receiveControlLen)], r.control)
	if r.segLen <= 0 || r.segLen > len(data) {
		r.segLen = max(len(data), 1)
	}
	out := Message{Data: data, SegLen: r.segLen, To: r.to, Interface: r.arrived}
	if n := &r.names[i]; r.conn.family == inet.IPv4 {
		out.From, out.FromPort = inet.Raw4(binary.BigEndian.Uint32(n.v4().Addr[:])), swapped(n.v4().Port)
	} else {
		out.From, out.FromPort = inet.Raw6(n.Addr[:]), swapped(n.Port)
	}
	return out
}

func (r *Receiver) readControl(level, kind int32, data []byte) {
	if len(data) < 4 {
		return
	}
	v := binary.NativeEndian.Uint32(data)
	switch {
	case level == unix.SOL_UDP && kind == unix.UDP_GRO:
		r.segLen = int(int32(v))
	case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL:
		// A running count that wraps around.
		r.conn.drops.Add(uint64(v - r.conn.ovfl))
		r.conn.ovfl = v
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		// ipi_ifindex, then ipi_spec_dst: this host's address, also for a broadcast.
		r.arrived = v
		r.to = inet.Raw4(binary.BigEndian.Uint32(data[4:]))
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		// ipi6_addr, then ipi6_ifindex.
		r.to = inet.Raw6(data)
		r.arrived = binary.NativeEndian.Uint32(data[16:])
	}
}
