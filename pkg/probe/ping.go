package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// Pinger sends pings on demand. Run must run for replies to be received. Its
// methods are safe for concurrent use.
type Pinger struct {
	socket *icmpSocket
	stamp  stamp

	mu   sync.Mutex // guards what follows
	seq  uint16
	sent map[uint16]ping
}

// ping is an outstanding echo request.
type ping struct {
	to   netip.Addr
	size int
	// answered takes the time of the reply. It has a buffer for it.
	answered chan time.Time
}

// Dial opens a socket for pings from source, or from an address that the kernel
// chooses if this host does not have source. The caller closes the Pinger.
func Dial(source netip.Addr) (*Pinger, error) {
	stamp := newStamp(inet.Of(source))
	s, err := openSocket(source, stamp.id)
	if err != nil {
		return nil, err
	}
	return &Pinger{socket: s, stamp: stamp, sent: make(map[uint16]ping)}, nil
}

// Close closes the socket. Run must have returned.
func (p *Pinger) Close() error { return p.socket.Close() }

// Run receives replies until ctx ends, which returns nil.
func (p *Pinger) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		d, err := p.socket.receive()
		if errors.Is(err, unix.EAGAIN) {
			if err := p.socket.await(); err != nil {
				return fmt.Errorf("await echo replies: %w", err)
			}
			continue
		}
		switch {
		case errors.Is(err, os.ErrClosed):
			return fmt.Errorf("receive echo replies: %w", err)
		case err != nil: // an ICMP error about an earlier request
			log.V(2).Infof("receive echo replies: %v", err)
		default:
			p.take(d)
		}
	}
	return nil
}

func (p *Pinger) take(d datagram) {
	now := time.Now()
	seq, size, ok := p.stamp.reply(d.message)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if request, ok := p.sent[seq]; ok && request.to == d.from && request.size == size {
		delete(p.sent, seq)
		request.answered <- now
	}
}

// Ping sends a packet of size bytes, with the IPv4 header and DF, and waits for
// its reply. Errors: ctx's if it ends before the reply, or that of the send, such
// as EMSGSIZE or ENETUNREACH.
func (p *Pinger) Ping(ctx context.Context, to netip.Addr, size int) (rtt time.Duration, err error) {
	request := ping{to: to, size: max(size, SmallSize(p.stamp.family)), answered: make(chan time.Time, 1)}
	p.mu.Lock()
	p.seq++
	seq := p.seq
	p.sent[seq] = request
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.sent, seq)
	}()
	message, err := p.stamp.request(seq, request.size)
	if err != nil {
		return 0, fmt.Errorf("make echo request: %w", err)
	}
	began := time.Now()
	if err := p.socket.send(message, to); err != nil {
		return 0, fmt.Errorf("send echo request: %w", err)
	}
	select {
	case at := <-request.answered:
		return at.Sub(began), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Largest returns the size of the largest packet, up to full bytes, that to
// answers; 0 if none is answered. It waits for each answer for timeout. Errors:
// ctx's, or that of a send other than EMSGSIZE.
func (p *Pinger) Largest(ctx context.Context, to netip.Addr, full int, timeout time.Duration) (int, error) {
	low, high := minSize-1, full+1 // low passes, unless it is minSize-1; high does not
	for size := full; high-low > 1; size = low + (high-low)/2 {
		passes, err := p.passes(ctx, to, size, timeout)
		switch {
		case err != nil:
			return 0, err
		case passes:
			low = size
		default:
			high = size
		}
	}
	if low < minSize {
		return 0, nil
	}
	return low, nil
}

// passes returns true if one of several packets of a size is answered. A packet
// may be lost for other reasons than its size.
func (p *Pinger) passes(ctx context.Context, to netip.Addr, size int, timeout time.Duration) (bool, error) {
	for range tries {
		limited, cancel := context.WithTimeout(ctx, timeout)
		_, err := p.Ping(limited, to, size)
		cancel()
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, unix.EMSGSIZE): // of the device's MTU, or of an ICMP error of the backend
			return false, nil
		case !errors.Is(err, context.DeadlineExceeded):
			return false, err
		}
	}
	return false, nil
}
