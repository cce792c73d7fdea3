package wireguard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/coreos/flannel/pkg/udpsock"
)

const (
	// socketBuffer is asked for in each direction, in bytes; wireguard-go's own
	// sockets have the same.
	socketBuffer = 7 << 20
	// receiveBatch is the most messages that are taken with one system call.
	receiveBatch = 16
	// knownSenders is how many senders' endpoints are kept for their next
	// datagrams. With more, some are made anew for each message.
	knownSenders = 256
)

// bind is the socket of a tunnel in user space, and what it sends and receives
// by; wireguard-go has one of its own, which copies each datagram once more on
// its way out and allocates for each on its way in. It is for IPv4, as all hosts'
// public addresses are.
type bind struct {
	mu   sync.Mutex // guards conn
	conn *udpsock.Conn
	// senders are idle *udpsock.Sender of conn.
	senders *sync.Pool
}

var _ conn.Bind = (*bind)(nil)

// Open implements conn.Bind.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	c, err := udpsock.Open(udpsock.Config{
		Local: netip.AddrPortFrom(netip.IPv4Unspecified(), port), Buffer: socketBuffer, Fragment: true, PacketInfo: true,
	})
	if err != nil {
		return nil, 0, err
	}
	b.conn = c
	b.senders = &sync.Pool{New: func() any { return udpsock.NewSender(c) }}
	in := &inbound{receiver: udpsock.NewReceiver(c, receiveBatch)}
	return []conn.ReceiveFunc{in.receive}, c.LocalAddr().Port(), nil
}

// Close implements conn.Bind.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		return nil
	}
	err := b.conn.Close()
	b.conn = nil
	return err
}

// SetMark implements conn.Bind.
func (b *bind) SetMark(mark uint32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		return nil
	}
	return b.conn.SetMark(mark)
}

// BatchSize implements conn.Bind.
func (b *bind) BatchSize() int { return conn.IdealBatchSize }

// ParseEndpoint implements conn.Bind.
func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	if !addr.Addr().Is4() {
		return nil, fmt.Errorf("endpoint %v is not an IPv4 address and port", addr)
	}
	return newEndpoint(addr, netip.Addr{}), nil
}

// Send implements conn.Bind.
func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.Lock()
	opened, senders := b.conn != nil, b.senders
	b.mu.Unlock()
	if !opened {
		return net.ErrClosed
	}
	s := senders.Get().(*udpsock.Sender)
	err := send(s, bufs, e.dest())
	// Perhaps this host has lost the address; the route knows one that it has.
	if errors.Is(err, unix.ENETUNREACH) && !e.forgot.Load() {
		e.ClearSrc()
		err = send(s, bufs, e.dest())
	}
	senders.Put(s)
	return err
}

// send sends datagrams of any lengths in their order. Its error is that of the
// first that could not be sent.
func send(s *udpsock.Sender, bufs [][]byte, to *udpsock.Dest) (err error) {
	for len(bufs) > 0 {
		n := alike(bufs)
		if _, ok := s.Add(to, bufs[:n], len(bufs[0]), n); ok {
			bufs = bufs[n:]
			continue
		}
		err = errors.Join(err, flush(s))
	}
	return errors.Join(err, flush(s))
}

// alike is how many of bufs, from the first on, make one message.
func alike(bufs [][]byte) int {
	size, bytes := len(bufs[0]), 0
	for i, b := range bufs {
		bytes += len(b)
		switch {
		case i == udpsock.MaxSegments, bytes > udpsock.MaxBytes, len(b) > size:
			return max(i, 1)
		case len(b) < size:
			return i + 1
		}
	}
	return len(bufs)
}

func flush(s *udpsock.Sender) error {
	results, err := s.Send()
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	return err
}

// inbound takes datagrams from the socket. It is for wireguard-go's one
// goroutine that receives.
type inbound struct {
	receiver *udpsock.Receiver
	next, n  int             // of the messages that were received
	message  udpsock.Message // what is left of the one before next
	from     *endpoint       // its sender
	known    [knownSenders]*endpoint
}

// receive implements conn.ReceiveFunc.
func (in *inbound) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	count := 0
	for count == 0 {
		if in.next == in.n && len(in.message.Data) == 0 {
			// First what was received before shall be decrypted and written:
			// its buffers come back while they still are in the cache.
			runtime.Gosched()
			n, err := in.receiver.Receive()
			if err != nil {
				return 0, fmt.Errorf("receive datagrams: %w", err)
			}
			in.next, in.n = 0, n
		}
		for ; count < len(bufs) && in.advance(); count++ {
			m := &in.message
			size := min(m.SegLen, len(m.Data))
			sizes[count], eps[count] = copy(bufs[count], m.Data[:size]), in.from
			m.Data = m.Data[size:]
		}
	}
	return count, nil
}

// advance goes on to the next message where there is nothing left of this one,
// and reports whether there is something now.
func (in *inbound) advance() bool {
	for len(in.message.Data) == 0 && in.next < in.n {
		in.message = in.receiver.Message(in.next)
		in.next++
		in.from = in.sender(&in.message)
	}
	return len(in.message.Data) > 0
}

// sender is where a message came from: the same endpoint as the last time, if
// that is known.
func (in *inbound) sender(m *udpsock.Message) *endpoint {
	e := &in.known[(m.From^uint32(m.FromPort))%knownSenders]
	from, to := netip.AddrPortFrom(addr4(m.From), m.FromPort), addr4(m.To)
	if *e == nil || (*e).addr != from || (*e).local != to || (*e).forgot.Load() {
		*e = newEndpoint(from, to)
	}
	return *e
}

func addr4(a uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return netip.AddrFrom4(b)
}

// endpoint is where a peer is, and at which of this host's addresses it sees us.
// Our datagrams leave from there, lest a firewall or NAT takes them for
// somebody else's.
type endpoint struct {
	addr  netip.AddrPort
	local netip.Addr // zero: not known
	// forgot is set once local is not to be used any more.
	forgot        atomic.Bool
	plain, source *udpsock.Dest
}

var _ conn.Endpoint = (*endpoint)(nil)

func newEndpoint(addr netip.AddrPort, local netip.Addr) *endpoint {
	e := &endpoint{addr: addr, local: local, plain: udpsock.NewDest(addr.Addr().As4(), addr.Port())}
	if !local.IsValid() {
		e.forgot.Store(true)
		return e
	}
	e.source = e.plain.From(local.As4())
	return e
}

func (e *endpoint) dest() *udpsock.Dest {
	if e.forgot.Load() {
		return e.plain
	}
	return e.source
}

// ClearSrc implements conn.Endpoint.
func (e *endpoint) ClearSrc() { e.forgot.Store(true) }

// SrcToString implements conn.Endpoint.
func (e *endpoint) SrcToString() string { return e.SrcIP().String() }

// DstToString implements conn.Endpoint.
func (e *endpoint) DstToString() string { return e.addr.String() }

// DstToBytes implements conn.Endpoint.
func (e *endpoint) DstToBytes() []byte {
	b, _ := e.addr.MarshalBinary() // never fails
	return b
}

// DstIP implements conn.Endpoint.
func (e *endpoint) DstIP() netip.Addr { return e.addr.Addr() }

// SrcIP implements conn.Endpoint.
func (e *endpoint) SrcIP() netip.Addr {
	if e.forgot.Load() {
		return netip.Addr{}
	}
	return e.local
}
