package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SmallSize is the size in bytes of the smallest packet that Ping sends.
const SmallSize = smallLen

// Pinger pings on demand, while Run runs. Its methods are safe for concurrent
// use.
type Pinger struct {
	conn  conn
	stamp stamp

	mu   sync.Mutex // guards what follows
	seq  uint16
	sent map[uint16]ping
}

// ping is an echo request under way.
type ping struct {
	to   netip.Addr
	size int
	// answered takes the time of the reply; it has room for it.
	answered chan time.Time
}

// Dial opens a socket for pings from source, or from what the kernel chooses
// where this host has no such address. Close it.
func Dial(source netip.Addr) (*Pinger, error) {
	c, err := dial(source)
	if err != nil {
		return nil, err
	}
	return &Pinger{conn: c, stamp: newStamp(), sent: make(map[uint16]ping)}, nil
}

// Close closes the socket. Run must have returned.
func (p *Pinger) Close() error { return p.conn.Close() }

// Run takes replies until ctx ends, which gives nil.
func (p *Pinger) Run(ctx context.Context) error { return receive(ctx, p.conn, p.take) }

func (p *Pinger) take(message []byte, from netip.Addr) {
	now := time.Now()
	seq, size, ok := p.stamp.reply(message)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if request, ok := p.sent[seq]; ok && request.to == from && request.size == size {
		delete(p.sent, seq)
		request.answered <- now
	}
}

// Ping sends a packet of size bytes, IPv4 header included, with the bit "don't
// fragment", and waits for its reply. Errors: ctx's, if there was none before
// it ended; or why the kernel did not send, e.g. EMSGSIZE or ENETUNREACH.
func (p *Pinger) Ping(ctx context.Context, to netip.Addr, size int) (rtt time.Duration, err error) {
	request := ping{to: to, size: max(size, smallLen), answered: make(chan time.Time, 1)}
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
	if _, err := p.conn.WriteTo(message, p.conn.addr(to)); err != nil {
		return 0, fmt.Errorf("send echo request: %w", err)
	}
	select {
	case at := <-request.answered:
		return at.Sub(began), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Largest finds the size in bytes of the largest packet, up to full, that to
// answers whole, waiting for each answer for patience. 0: none was answered.
// Errors: ctx's, or why the kernel does not send even small ones.
func (p *Pinger) Largest(ctx context.Context, to netip.Addr, full int, patience time.Duration) (int, error) {
	low, high := leastSize-1, full+1 // low passes, or there is none; high does not
	for size := full; high-low > 1; size = low + (high-low)/2 {
		passes, err := p.passes(ctx, to, size, patience)
		switch {
		case err != nil:
			return 0, err
		case passes:
			low = size
		default:
			high = size
		}
	}
	if low < leastSize {
		return 0, nil
	}
	return low, nil
}

// passes tries a size, a few times since a packet may be lost for other reasons.
func (p *Pinger) passes(ctx context.Context, to netip.Addr, size int, patience time.Duration) (bool, error) {
	for range tries {
		limited, cancel := context.WithTimeout(ctx, patience)
		_, err := p.Ping(limited, to, size)
		cancel()
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, unix.EMSGSIZE): // the device's MTU, or what the backend told
			return false, nil
		case !errors.Is(err, context.DeadlineExceeded):
			return false, err
		}
	}
	return false, nil
}
