package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/udpsock"
)

const (
	// socketBuffer is the size of each direction's socket buffer, in bytes, as
	// wireguard-go's own sockets have it.
	socketBuffer = 7 << 20
	// receiveBatch is the most messages that one system call receives.
	receiveBatch = 16
	// endpointCache is how many senders' endpoints are kept. With more senders,
	// some messages allocate one.
	endpointCache = 256
)

// bind are the UDP sockets of a tunnel in user space, one for each family of its
// datagrams. wireguard-go's own copy each outgoing datagram once more and allocate for
// each incoming one.
type bind struct {
	vrf string // that the sockets are bound to; "": none

	mu       sync.Mutex // guards what follows
	families []inet.Family
	socks    [2]sock // by family
	// changing: between Close and Open the sockets stay open, to send and to hold what
	// arrives.
	changing bool
}

// sock is an open socket; the zero sock is none.
type sock struct {
	conn *udpsock.Conn
	// senders are idle *udpsock.Sender of conn.
	senders *sync.Pool
}

// Open implements conn.Bind.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.socks != [2]sock{} && !b.changing {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	var receive []conn.ReceiveFunc
	for _, f := range b.families {
		if err := b.open(f, port); err != nil {
			return nil, 0, errors.Join(err, b.close())
		}
		c := b.socks[f].conn
		r := &receiver{socket: udpsock.NewReceiver(c, receiveBatch)}
		receive = append(receive, r.receive)
		port = c.LocalAddr().Port() // the families share it
	}
	return receive, port, nil
}

// open opens the socket of a family, or uses the one that is open.
func (b *bind) open(f inet.Family, port uint16) error {
	if c := b.socks[f].conn; c != nil {
		return c.Resume()
	}
	c, err := udpsock.Open(udpsock.Config{
		Local: netip.AddrPortFrom(f.Unspecified(), port), Device: b.vrf, Buffer: socketBuffer, Fragment: true, PacketInfo: true,
	})
	if err != nil {
		return err
	}
	b.socks[f] = sock{c, &sync.Pool{New: func() any { return udpsock.NewSender(c) }}}
	return nil
}

// change sets the families of the sockets, and calls update, which closes and opens the
// bind. A socket of a family that stays is open all the time.
func (b *bind) change(families []inet.Family, update func() error) error {
	b.setChanging(true, families)
	defer b.setChanging(false, families)
	return update()
}

func (b *bind) setChanging(on bool, families []inet.Family) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.families, b.changing = families, on
}

// Close implements conn.Bind.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.changing {
		return b.close()
	}
	var errs []error
	for f, s := range b.socks {
		switch {
		case s.conn == nil:
		case slices.Contains(b.families, inet.Family(f)):
			errs = append(errs, s.conn.Wake()) // ends its receiver
		default:
			errs = append(errs, s.conn.Close())
			b.socks[f] = sock{}
		}
	}
	return errors.Join(errs...)
}

// close is Close for callers that hold mu.
func (b *bind) close() error {
	var errs []error
	for _, s := range b.socks {
		if s.conn != nil {
			errs = append(errs, s.conn.Close())
		}
	}
	b.socks = [2]sock{}
	return errors.Join(errs...)
}

// losses lists what the sockets lack, each with the reason.
func (b *bind) losses() (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.families {
		c := b.socks[f].conn
		if c == nil {
			continue
		}
		has := c.Features()
		for _, loss := range []struct {
			name string
			why  error
		}{{"UDP_SEGMENT", has.Segment}, {"UDP_GRO", has.GRO}, {"large buffers", has.Buffers}} {
			if loss.why != nil {
				all = append(all, fmt.Sprintf("%s (%v)", loss.name, loss.why))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// SetMark implements conn.Bind.
func (b *bind) SetMark(mark uint32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, s := range b.socks {
		if s.conn != nil {
			errs = append(errs, s.conn.SetMark(mark))
		}
	}
	return errors.Join(errs...)
}

// BatchSize implements conn.Bind.
func (b *bind) BatchSize() int { return conn.IdealBatchSize }

// ParseEndpoint implements conn.Bind.
func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := inet.Of(addr.Addr()); !slices.Contains(b.families, f) {
		return nil, fmt.Errorf("endpoint %v is of %v, for which the tunnel has no socket", addr, f)
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
	senders := b.socks[inet.Of(e.addr.Addr())].senders
	b.mu.Unlock()
	if senders == nil {
		return net.ErrClosed
	}
	s := senders.Get().(*udpsock.Sender)
	err := send(s, bufs, e.dest.Load())
	// This host may have lost the source address; the route selects another.
	if (errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EINVAL)) && !e.srcCleared() {
		e.ClearSrc()
		err = send(s, bufs, e.dest.Load())
	}
	senders.Put(s)
	return err
}

// send sends datagrams of any lengths, in order.
func send(s *udpsock.Sender, bufs [][]byte, to *udpsock.Dest) (err error) {
	for len(bufs) > 0 {
		n := segments(bufs)
		if _, ok := s.Add(to, bufs[:n], len(bufs[0]), n); ok {
			bufs = bufs[n:]
			continue
		}
		err = errors.Join(err, flush(s))
	}
	return errors.Join(err, flush(s))
}

// segments returns how many of bufs, from the first on, fit into one message: all
// but the last of one size.
func segments(bufs [][]byte) int {
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

// receiver splits the socket's messages into datagrams. It is for wireguard-go's
// one receiving goroutine.
type receiver struct {
	socket    *udpsock.Receiver
	next, n   int             // the next message, and how many were received
	message   udpsock.Message // the rest of the one before next
	from      *endpoint       // its sender
	endpoints [endpointCache]*endpoint
}

// receive implements conn.ReceiveFunc.
func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	count := 0
	for count == 0 {
		if r.next == r.n && len(r.message.Data) == 0 {
			// Yield, so that the workers decrypt and write the last batch while its
			// buffers are in the cache.
			runtime.Gosched()
			n, err := r.socket.Receive()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, net.ErrClosed // for wireguard-go the socket is closed
			}
			if err != nil {
				return 0, fmt.Errorf("receive datagrams: %w", err)
			}
			r.next, r.n = 0, n
		}
		for ; count < len(bufs) && r.advance(); count++ {
			m := &r.message
			size := min(m.SegLen, len(m.Data))
			sizes[count], eps[count] = copy(bufs[count], m.Data[:size]), r.from
			m.Data = m.Data[size:]
		}
	}
	return count, nil
}

// advance moves to the next message if the current one is used up, and reports
// whether there is data.
func (r *receiver) advance() bool {
	for len(r.message.Data) == 0 && r.next < r.n {
		r.message = r.socket.Message(r.next)
		r.next++
		r.from = r.endpoint(&r.message)
	}
	return len(r.message.Data) > 0
}

// endpoint returns the sender of m, from the cache if possible.
func (r *receiver) endpoint(m *udpsock.Message) *endpoint {
	e := &r.endpoints[(m.From.Hi^m.From.Lo^uint64(m.FromPort))%endpointCache]
	from, to := netip.AddrPortFrom(m.From.Addr(), m.FromPort), m.To.Addr()
	if *e == nil || (*e).addr != from || (*e).local != to || (*e).srcCleared() {
		*e = newEndpoint(from, to)
	}
	return *e
}

// endpoint is a peer's address, and the address of this host that the peer sends
// to. Our datagrams leave from there, so that a firewall or NAT on the way knows
// the flow.
type endpoint struct {
	addr  netip.AddrPort
	local netip.Addr // zero: not known
	plain *udpsock.Dest
	// dest is plain, or sends from local until that must not be used any more.
	dest atomic.Pointer[udpsock.Dest]
}

func newEndpoint(addr netip.AddrPort, local netip.Addr) *endpoint {
	e := &endpoint{addr: addr, local: local, plain: udpsock.NewDest(addr)}
	e.dest.Store(e.plain)
	if local.IsValid() {
		e.dest.Store(e.plain.From(local))
	}
	return e
}

func (e *endpoint) srcCleared() bool { return e.dest.Load() == e.plain }

// ClearSrc implements conn.Endpoint.
func (e *endpoint) ClearSrc() { e.dest.Store(e.plain) }

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
	if e.srcCleared() {
		return netip.Addr{}
	}
	return e.local
}
