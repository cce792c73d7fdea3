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
	// MaxBuffers is the most buffers of one Sender: a message with a header and
	// a payload for each of its datagrams, and as much again.
	MaxBuffers = 4 * MaxSegments
	// MaxBytes is the most bytes of one message, those of the largest UDP
	// payload over IPv4: 65535 less the IP and UDP headers.
	MaxBytes = 65507
)

// Result is what became of a message.
type Result struct {
	// Packets and Bytes are what the message had.
	Packets, Bytes int
	// Err is nil if the message was sent, else the errno: EMSGSIZE for a
	// datagram that is larger than the path's MTU.
	Err error
}

// Sender collects datagrams and sends them. One goroutine uses it.
type Sender struct {
	conn *Conn

	n, nIov  int
	msgs     [MaxMessages]mmsghdr
	iovs     [MaxBuffers]unix.Iovec
	bufs     [MaxBuffers][]byte // the same buffers, in Go's terms
	info     [MaxMessages]message
	controls []byte
	results  [MaxMessages]Result

	from, to int // the messages of the next system call
	sent     int
	errno    syscall.Errno
	do       func(fd uintptr) bool
}

// message is what is known of a message beyond its mmsghdr.
type message struct {
	dest           *Dest
	firstIov       int
	segLen         int
	packets, bytes int
}

// NewSender makes an empty Sender.
func NewSender(c *Conn) *Sender {
	s := &Sender{conn: c, controls: make([]byte, MaxMessages*sendControlLen)}
	s.do = s.sendOnce
	return s
}

// Add queues count datagrams to one destination: bufs holds them one behind the
// other, each beginning at a buffer's beginning; all have segLen bytes except
// for the last, which may have fewer. They join the last message if they fit
// behind it, so that order within a destination is kept.
//
// It returns the index of the last message that they became part of, and false,
// with nothing queued, if there is no room. An empty Sender has room for
// MaxSegments datagrams of two buffers each. The buffers must stay as they are
// until Send.
func (s *Sender) Add(to *Dest, bufs [][]byte, segLen, count int) (int, bool) {
	segments := s.conn.segments()
	if s.nIov+len(bufs) > MaxBuffers || !segments && s.n+count > MaxMessages {
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

// joins reports whether datagrams can go into the last message: its own must
// all be whole, and theirs of the same length, or a single shorter one.
func (s *Sender) joins(to *Dest, segLen, count, bytes int) bool {
	if s.n == 0 {
		return false
	}
	m := &s.info[s.n-1]
	return m.dest == to && m.bytes == m.packets*m.segLen &&
		(segLen == m.segLen || count == 1 && segLen < m.segLen) &&
		m.packets+count <= MaxSegments && m.bytes+bytes <= MaxBytes
}

// open starts a message of the next n buffers.
func (s *Sender) open(to *Dest, n, segLen, packets, bytes int) {
	s.info[s.n] = message{dest: to, firstIov: s.nIov, segLen: segLen, packets: packets, bytes: bytes}
	m := &s.msgs[s.n]
	m.setName(&to.sockaddr)
	m.hdr.Iov = &s.iovs[s.nIov]
	m.hdr.SetIovlen(n)
	s.n++
	s.nIov += n
}

// addEach makes a message of every datagram.
func (s *Sender) addEach(to *Dest, n, segLen int) {
	for end := s.nIov + n; s.nIov < end; {
		k, bytes := s.datagram(s.nIov, end, segLen)
		s.open(to, k, bytes, 1, bytes)
	}
}

// datagram returns how many buffers, from first on, make up one datagram of up
// to segLen bytes, and its length.
func (s *Sender) datagram(first, end, segLen int) (n, bytes int) {
	for first+n < end && bytes < segLen {
		bytes += len(s.bufs[first+n])
		n++
	}
	return n, bytes
}

// Len is the number of messages queued.
func (s *Sender) Len() int { return s.n }

// Send sends all messages and returns what became of each, in the order of
// their indices. The Sender is empty afterwards; the results are valid until
// the next Send. The error says that the Conn was closed or woken.
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

// setControl writes the control messages of message i: where it is from, and
// whether it is to be cut into segments.
func (s *Sender) setControl(i int, segment bool) {
	m, h := &s.info[i], &s.msgs[i].hdr
	control, n := s.controls[i*sendControlLen:][:sendControlLen], 0
	if m.dest.source != [4]byte{} {
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

// transmit sends the messages from..to with one system call. It returns how
// many went out, and leaves in errno why the next one did not.
func (s *Sender) transmit(from, to int) (int, error) {
	s.from, s.to, s.sent, s.errno = from, to, 0, 0
	if only := s.conn.only; only != nil {
		err := only.write(s.conn.raw, s.do)
		return s.sent, err
	}
	if err := s.conn.raw.Write(s.do); err != nil {
		return 0, err
	}
	return s.sent, nil
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
			if only := s.conn.only; only != nil && only.awaitRoom(fd) {
				continue
			}
			return false
		default:
			s.errno = errno
		}
		return true
	}
}

// send runs the system call: the one for a lone datagram, as a request is, where
// there is just that.
func (s *Sender) send(fd uintptr) (int, syscall.Errno) {
	if h := &s.msgs[s.from].hdr; s.to-s.from == 1 && h.Iovlen == 1 && h.Control == nil {
		return 1, sendTo(fd, h)
	}
	return mmsg(unix.SYS_SENDMMSG, fd, s.msgs[s.from:s.to])
}

// failed decides about message i, which the kernel refused. The fault may be
// UDP_SEGMENT's: EIO where the network card has no checksum offload, EINVAL for
// what a kernel on the way dislikes (udp_send_skb, net/ipv4/udp.c). If its
// datagrams go out one by one, then it is, and the offload stays off. Segments
// that are larger than the path takes are the kernel's to split only where it
// does not make them itself.
func (s *Sender) failed(i int, errno syscall.Errno) error {
	m := s.info[i]
	tooLong := s.conn.fragment && errno == unix.EMSGSIZE
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
		s.conn.turnOffSegment(errno)
	}
	return nil
}

// Packets calls f with the buffers of each datagram of a message of the last
// Send, until it returns false.
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
