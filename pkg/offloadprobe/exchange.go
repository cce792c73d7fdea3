package offloadprobe

import (
	"context"
	"errors"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	log "github.com/golang/glog"
)

// outcome is that of a probe.
type outcome int

const (
	lost outcome = iota
	passed
	// unreachable: there was no connection, which says nothing about the shape.
	unreachable
)

// exchange is a probe of UDP that waits for its receipts.
type exchange struct {
	from netip.Addr // of the receipts
	// missing has a bit for each datagram without a receipt. bleached is true after a
	// receipt with another TOS.
	missing  uint64
	tos      byte
	bleached bool
	last     header // the last receipt
	done     chan struct{}
}

// exchanges are those that wait, by token.
type exchanges struct {
	mu      sync.Mutex
	waiting map[uint64]*exchange // guarded by mu
}

func (e *exchanges) add(token uint64, x *exchange) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting[token] = x
}

// remove ends the wait. After it nothing changes the exchange.
func (e *exchanges) remove(token uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, token)
}

// receipt notes a receipt from an address.
func (e *exchanges) receipt(h header, from netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.waiting[h.token]
	if x == nil || x.from != from || x.missing == 0 {
		return
	}
	x.last = h
	x.missing &^= 1 << min(h.index, 63)
	// CE on the way is as good as ECT(0): a router marks packets before its queue is full.
	x.bleached = x.bleached || (x.tos&ecnMask != 0 && h.tos&ecnMask == 0)
	if x.missing == 0 {
		close(x.done)
	}
}

// take handles a datagram at the socket of the probes.
func (p *Prober) take(d datagram) {
	var h header
	if h.parse(d.data) == nil && h.kind == kindReceipt {
		p.exchanges.receipt(h, d.from.Addr())
	}
}

// probe sends a shape to a peer, and waits for the receipts.
func (p *Prober) probe(ctx context.Context, to *peer, s shape) outcome {
	if forms[s].tcp {
		return p.probeTCP(ctx, to, s)
	}
	return p.probeUDP(ctx, to, s)
}

func (p *Prober) probeUDP(ctx context.Context, to *peer, s shape) outcome {
	f, token := forms[s], rand.Uint64()
	addr := to.addr
	if f.merge {
		addr = mergingAddr(addr)
	}
	x := &exchange{from: addr.Addr(), missing: 1<<f.packets - 1, tos: f.tos, done: make(chan struct{})}
	messages := make([][]byte, f.packets)
	for i := range messages {
		messages[i] = header{kind: kindProbe, shape: s, index: uint8(i), token: token}.message(f.size(p.config.MTU))
	}
	p.exchanges.add(token, x)
	began := time.Now()
	timer := time.NewTimer(p.wait(to))
	defer timer.Stop()
	if err := p.socket.send(f, messages, addr); err != nil && !isICMP(err) {
		log.V(2).Infof("send offload probe to=%v shape=%d: %v", addr, s, err)
	}
	select {
	case <-x.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	p.exchanges.remove(token)
	if bits.OnesCount64(x.missing) < f.packets {
		p.setRx(to, x.last)
	}
	if x.missing != 0 || x.bleached {
		return lost
	}
	p.noteRTT(to, time.Since(began))
	return passed
}

func (p *Prober) probeTCP(ctx context.Context, to *peer, s shape) outcome {
	t := &tcpProbe{
		local: p.config.Local.Addr(), to: to.addr, wait: p.wait(to), dial: p.dial,
		head: header{kind: kindProbe, shape: s, token: rand.Uint64()},
	}
	receipt, failed, err := t.run(ctx)
	switch {
	case err != nil:
		if !errors.Is(err, errUnreachable) {
			log.V(1).Infof("offload probe of TCP to=%v: %v", to.addr, err)
		}
		return unreachable
	case failed:
		return lost
	}
	p.setRx(to, receipt)
	return passed
}

// wait is the time for a receipt: four round trips, within bounds.
func (p *Prober) wait(of *peer) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(max(4*of.rtt, p.least), p.most)
}

// noteRTT keeps the largest of the latest round trips.
func (p *Prober) noteRTT(of *peer, rtt time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of.rtt = max(rtt, of.rtt*7/8)
}
