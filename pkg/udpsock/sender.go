package udpsock

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// MaxMessages is the most messages of one Sender.
	MaxMessages = 64
	// MaxSegments is the most datagrams of one message (UDP_MAX_SEGMENTS,
	// linux/udp.h: 64, and 128 in newer kernels).
	MaxSegments = 64
	// maxBuffers is the most buffers of one Sender: twice those of a message
	// with a header and a payload for each datagram.
	maxBuffers = 4 * MaxSegments
	// MaxBytes is the most bytes of one message: 65535 less the IPv4 and UDP
	// headers. IPv6, whose length field does not include its header, takes more.
	MaxBytes = 65507
)

// Result is the outcome of a message.
type Result struct {
	// Packets is the number of datagrams, Bytes the sum of their lengths.
	Packets, Bytes int
	// Err is nil if the message was sent, else the errno. EMSGSIZE: a datagram
	// is larger than the path's MTU.
	Err error
}

// Sender collects datagrams and sends them. One goroutine uses it.
type Sender struct {
	socket Socket
	common *socket

	n, nIov  int
	msgs     [MaxMessages]mmsghdr
	iovs     [maxBuffers]unix.Iovec
	bufs     [maxBuffers][]byte // the buffers of iovs
	info     [MaxMessages]message
	controls []byte
	results  [MaxMessages]Result

	from, to int // the messages of the next system call
	sent     int
	errno    syscall.Errno
	do       func(fd uintptr) bool
}

// message describes a message beyond its mmsghdr.
type message struct {
	dest           *Dest
	firstIov       int
	segLen         int
	packets, bytes int
}

// NewSender returns an empty Sender.
func NewSender(c Socket) *Sender {
	s := &Sender{socket: c, common: c.common(), controls: make([]byte, MaxMessages*sendControlLen)}
	s.do = s.sendOnce
	return s
}

// Add queues count datagrams to one destination. bufs holds them one after the
// other, each from a buffer's beginning. Each has segLen bytes; the last may have
// fewer. They join the last message if they fit, so a destination's datagrams
// keep their order.
//
// It returns the index of their last message. If there is no room it returns
// false and queues nothing. An empty Sender has room for MaxSegments datagrams of
// two buffers each. The caller must not change the buffers before Send.
func (s *Sender) Add(to *Dest, bufs [][]byte, segLen, count int) (int, bool) {
	segments := s.common.segments()
	if s.nIov+len(bufs) > maxBuffers || !segments && s.n+count > MaxMessages {
		return 0, false
	}
	bytes := 0
	for i, b := range bufs {
		iov := &s.iovs[s.nIov+i]
		iov.Base = &b[0]
		iov.SetLen(len(b))
		s.bufs[s.nIov+i] = b
		bytes += len(b)
	}
	switch {
	case !segments && count > 1:
		s.addEach(to, len(bufs), segLen)
	case segments && s.joins(to, segLen, count, bytes):
		m, h := &s.info[s.n-1], &s.msgs[s.n-1].hdr
		m.packets += count
		m.bytes += bytes
		h.SetIovlen(int(h.Iovlen) + len(bufs))
		s.nIov += len(bufs)
	default:
		if s.n == MaxMessages {
			return 0, false
		}
		s.open(to, len(bufs), segLen, count, bytes)
	}
	return s.n - 1, true
}

// joins returns true if datagrams fit into the last message: its own all have
// full length, and theirs have the same one, or there is a single shorter one.
func (s *Sender) joins(to *Dest, segLen, count, bytes int) bool {
	if s.n == 0 {
		return false
	}
	m := &s.info[s.n-1]
	return m.dest == to && m.bytes == m.packets*m.segLen &&
		(segLen == m.segLen || count == 1 && segLen < m.segLen) &&
		m.packets+count <= MaxSegments && m.bytes+bytes <= MaxBytes
}

// open begins a message of the next n buffers.
func (s *Sender) open(to *Dest, n, segLen, packets, bytes int) {
	s.info[s.n] = message{dest: to, firstIov: s.nIov, segLen: segLen, packets: packets, bytes: bytes}
	m := &s.msgs[s.n]
	m.setDest(to)
	m.hdr.Iov = &s.iovs[s.nIov]
	m.hdr.SetIovlen(n)
	s.n++
	s.nIov += n
}

// addEach makes each datagram a message.
func (s *Sender) addEach(to *Dest, n, segLen int) {
	for end := s.nIov + n; s.nIov < end; {
		k, bytes := s.datagram(s.nIov, end, segLen)
		s.open(to, k, bytes, 1, bytes)
	}
}

// datagram returns how many buffers from first on form one datagram of up to
// segLen bytes, and its length.
func (s *Sender) datagram(first, end, segLen int) (n, bytes int) {
	for first+n < end && bytes < segLen {
		bytes += len(s.bufs[first+n])
		n++
	}
	return n, bytes
}

// Len returns the number of queued messages.
func (s *Sender) Len() int { return s.n }

// Send sends all messages and returns their results by index. The Sender is empty
// afterwards. The results are valid until the next Send. Errors: net.ErrClosed
// after Close of the Socket, os.ErrDeadlineExceeded after Wake.
func (s *Sender) Send() ([]Result, error) {
	n := s.n
	s.n, s.nIov = 0, 0
	for i := range n {
		m := &s.info[i]
		s.results[i] = Result{Packets: m.packets, Bytes: m.bytes}
		s.setControl(i, m.packets > 1)
	}
	for done := 0; done < n; {
		sent, err := s.transmit(done, n)
		if err != nil {
			return nil, err
		}
		done += sent
		if s.errno == 0 {
			continue
		}
		if err := s.failed(done, s.errno); err != nil {
			return nil, err
		}
		done++
	}
	return s.results[:n], nil
}

// setControl writes the control messages of message i: its source address, and
// the segment size if segment is true.
func (s *Sender) setControl(i int, segment bool) {
	m, h := &s.info[i], &s.msgs[i].hdr
	control, n := s.controls[i*sendControlLen:][:sendControlLen], 0
	if m.dest.source.IsValid() {
		n += putSource(control, m.dest.source)
	}
	if segment {
		n += putSegmentSize(control[n:], uint16(m.segLen))
	}
	h.Control = nil
	if n > 0 {
		h.Control = &control[0]
	}
	h.SetControllen(n)
}

// transmit sends the messages from..to with one system call. It returns how many
// were sent, and sets errno if the next one was refused.
func (s *Sender) transmit(from, to int) (int, error) {
	s.from, s.to, s.sent, s.errno = from, to, 0, 0
	err := s.socket.write(s.do)
	return s.sent, err
}

func (s *Sender) sendOnce(fd uintptr) bool {
	for {
		n, errno := s.send(fd)
		switch errno {
		case 0:
			s.sent = n
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if s.socket.awaitRoom(fd) {
				continue
			}
			return false
		default:
			s.errno = errno
		}
		return true
	}
}

// send runs the system call: sendto if there is only one datagram, such as a
// request, else sendmmsg.
func (s *Sender) send(fd uintptr) (int, syscall.Errno) {
	if h := &s.msgs[s.from].hdr; s.to-s.from == 1 && h.Iovlen == 1 && h.Control == nil {
		return 1, sendTo(fd, h)
	}
	return mmsg(unix.SYS_SENDMMSG, fd, s.msgs[s.from:s.to])
}

// failed handles message i, which the kernel refused. UDP_SEGMENT may be the
// cause: EIO if the network card has no checksum offload, EINVAL for other
// reasons (udp_send_skb, net/ipv4/udp.c). So the datagrams are sent one by one.
// If that works, UDP_SEGMENT was the cause and stays off.
//
// With Config.Fragment, EMSGSIZE is the other case: the kernel splits a datagram
// that is too large, but not a segment that it made.
func (s *Sender) failed(i int, errno syscall.Errno) error {
	m := s.info[i]
	tooLong := s.common.fragment && errno == unix.EMSGSIZE
	if m.packets == 1 || errno != unix.EIO && errno != unix.EINVAL && !tooLong {
		s.results[i].Err = errno
		return nil
	}
	iovs := int(s.msgs[i].hdr.Iovlen)
	h := &s.msgs[i].hdr
	s.setControl(i, false)
	for first, end := m.firstIov, m.firstIov+iovs; first < end; {
		k, _ := s.datagram(first, end, m.segLen)
		h.Iov = &s.iovs[first]
		h.SetIovlen(k)
		if _, err := s.transmit(i, i+1); err != nil {
			return err
		}
		if s.errno != 0 {
			s.results[i].Err = s.errno
			return nil
		}
		first += k
	}
	if !tooLong {
		why := errno
		s.common.segmentOff.Store(&why)
	}
	return nil
}

// Packets calls f with the buffers of each datagram of message i of the last
// Send, until f returns false.
func (s *Sender) Packets(i int, f func(bufs [][]byte) bool) {
	m := &s.info[i]
	sum := 0
	for first := m.firstIov; sum < m.bytes; {
		k, bytes := s.datagram(first, len(s.bufs), min(m.segLen, m.bytes-sum))
		if !f(s.bufs[first : first+k]) {
			return
		}
		first += k
		sum += bytes
	}
}
