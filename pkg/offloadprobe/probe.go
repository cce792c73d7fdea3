package offloadprobe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/inet"
)

// outcome is that of a probe.
type outcome int

const (
	lost outcome = iota
	passed
	// unanswered: the SYN of the connection has not arrived. unreachable: there was no
	// connection for another reason. Neither says anything about the shape.
	unanswered
	unreachable
)

// receiptBuffer holds a receipt.
const receiptBuffer = 2 * headerLen

// send sends a shape to a peer, and waits for the receipts.
func (p *Prober) send(ctx context.Context, to *peer, s shape) outcome {
	switch f := forms[s]; {
	case f.syn:
		return p.probeSYN(ctx, to)
	case f.tcp:
		return p.probeTCP(ctx, to, s)
	}
	result, err := p.probeUDP(ctx, to, s, 0)
	if err != nil {
		log.V(2).Infof("offload probe to=%v shape=%d: %v", to.addr, s, err)
	}
	return result
}

// probeUDP uses a socket of its own, and so a port. A path may treat each flow in another
// way. about is the port of a tcpArrival.
func (p *Prober) probeUDP(ctx context.Context, to *peer, s shape, about uint16) (result outcome, err error) {
	var socket *udpSocket
	err = p.within(func() (err error) {
		socket, err = listenUDP(ctx, netip.AddrPortFrom(p.config.localFor(to.addr), 0), false)
		return err
	})
	if err != nil {
		return lost, err
	}
	defer func() { err = errors.Join(err, socket.close()) }()
	f := forms[s]
	x := exchange{token: rand.Uint64(), missing: 1<<f.packets - 1, tos: f.tos, to: to.addr}
	if f.merge {
		x.to = mergingAddr(to.addr)
	}
	if s == tcpArrival {
		x.missing = 1 << hasArrived
	}
	layer := p.resultOf(to).Tx.Layer
	messages, size := make([][]byte, f.packets), f.size(p.config.MTU, inet.Of(to.addr.Addr()))
	for i := range messages {
		messages[i] = header{
			kind: kindProbe, shape: s, index: uint8(i), token: x.token, layer: layer.code(), port: about, length: uint32(size),
		}.message(size)
	}
	began := time.Now()
	if err := socket.conn.SetReadDeadline(began.Add(p.wait(to))); err != nil {
		return lost, fmt.Errorf("set deadline of offload probe: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.conn.SetReadDeadline(began) })
	defer stop()
	if err := socket.send(f, messages, x.to); err != nil {
		return lost, err // the device is away, or has a smaller MTU
	}
	buffer, control := make([]byte, receiptBuffer), make([]byte, controlLen)
	for x.missing != 0 {
		if err := socket.receive(buffer, control, x.take); err != nil {
			break // the deadline, or an ICMP error about a datagram
		}
	}
	if x.last.kind == kindReceipt {
		p.setRx(to, x.last)
	}
	if x.missing != 0 || x.bleached {
		return lost, nil
	}
	p.noteRTT(to, time.Since(began))
	return passed, nil
}

// exchange is a probe of UDP that waits for its receipts.
type exchange struct {
	to    netip.AddrPort
	token uint64
	// missing has a bit for each datagram without a receipt. bleached is true after a receipt
	// without an ECN codepoint, if tos has one.
	missing  uint64
	tos      byte
	bleached bool
	last     header // the last receipt
}

// take notes a receipt.
func (x *exchange) take(d datagram) {
	var h header
	if h.parse(d.data) != nil || h.kind != kindReceipt || h.token != x.token || d.from != x.to {
		return
	}
	x.last = h
	x.missing &^= 1 << min(h.index, 63)
	// CE is as good as ECT(0): a router marks packets before its queue is full.
	x.bleached = x.bleached || (x.tos&ecnMask != 0 && h.tos&ecnMask == 0)
}

func (p *Prober) probeTCP(ctx context.Context, to *peer, s shape) outcome {
	t := &tcpProbe{
		local: p.config.localFor(to.addr), to: to.addr, wait: p.wait(to), dial: p.dial,
		head: header{kind: kindProbe, shape: s, token: rand.Uint64()},
	}
	receipt, failed, err := t.run(ctx)
	switch {
	case errors.Is(err, errUnanswered) && !p.arrived(ctx, to, t.port):
		return unanswered
	case err != nil:
		log.V(1).Infof("offload probe of TCP to=%v: %v", to.addr, err)
		return unreachable
	case failed:
		return lost
	}
	p.setRx(to, receipt)
	return passed
}

// probeSYN is unreachable without the right to send a SYN.
func (p *Prober) probeSYN(ctx context.Context, to *peer) outcome {
	syn := newSYNProbe(p.config.localFor(to.addr), to.addr, p.wait(to))
	failed, err := syn.run(ctx, p.within)
	switch {
	case err != nil:
		log.V(1).Infof("offload probe by a SYN to=%v: %v", to.addr, err)
		return unreachable
	case failed && !p.arrived(ctx, to, syn.port): // promise: answer-may-be-lost
		return lost
	}
	return passed
}

// probeInTurn is probe, after a pause that differs for each shape. Otherwise a data path
// may send several shapes in one super-packet.
func (p *Prober) probeInTurn(ctx context.Context, to *peer, s shape) outcome {
	timer := time.NewTimer(time.Duration(s) * shapeSpacing)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return p.probe(ctx, to, s)
}

// shapeSpacing is the time between two shapes of a round.
const shapeSpacing = 5 * time.Millisecond

// wait is the time for a receipt: four round trips, within bounds. It is the longest
// until a round trip is known.
func (p *Prober) wait(of *peer) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if of.rtt == 0 {
		return p.maxWait
	}
	return min(max(4*of.rtt, p.minWait), p.maxWait)
}

// noteRTT keeps the largest of the latest round trips.
func (p *Prober) noteRTT(of *peer, rtt time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of.rtt = max(rtt, of.rtt*7/8)
}

// forgetRTT makes the next waits the longest: the path may have become slower.
func (p *Prober) forgetRTT(of *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of.rtt = 0
}

// answers reports whether a peer answers, by one small packet if no round trip is known.
func (p *Prober) answers(ctx context.Context, to *peer) bool {
	p.mu.Lock()
	known := to.rtt != 0
	p.mu.Unlock()
	return known || p.probe(ctx, to, small) == passed
}
