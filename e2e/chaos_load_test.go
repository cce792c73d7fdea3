package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/inet"
)

const (
	echoPort = 7
	// sendEvery is the pause between a flow's packets.
	sendEvery = 20 * time.Millisecond
	// answerLimit is how long an answer may take and not be lost.
	answerLimit = 2 * time.Second
)

// flow is a container that sends requests of one family to another one all the time,
// and counts the answers.
type flow struct {
	from, to *node
	family   inet.Family
	conn     net.PacketConn

	mu       sync.Mutex // guards the fields below
	next     uint64
	waiting  map[uint64]request // those that have no answer yet
	answered uint64             // the highest number that has
}

// request is a packet of a flow.
type request struct {
	sent    time.Time
	arrived bool // the other container has got it
}

// startLoad sends packets of a family between all containers, each way, until the test
// ends.
func startLoad(t *testing.T, nodes []*node, family inet.Family) []*flow {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	listen := func(n *node, port uint16) net.PacketConn {
		c, err := n.container.ListenPacket(ctx, "udp", netip.AddrPortFrom(n.containerAddrOf(family), port).String())
		if err != nil {
			t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { c.Close() })
		return c
	}
	t.Cleanup(func() { cancel(); work.Wait() })
	var flows []*flow
	for _, to := range nodes {
		echo, sources := listen(to, echoPort), make(map[string]*flow)
		for _, from := range nodes {
			if from == to {
				continue
			}
			f := &flow{from: from, to: to, family: family, conn: listen(from, 0), waiting: make(map[uint64]request)}
			sources[f.conn.LocalAddr().String()] = f
			work.Go(func() { f.ask(ctx, to.containerAddrOf(family)) })
			work.Go(func() { f.listen(ctx) })
			flows = append(flows, f)
		}
		work.Go(func() { sendBack(ctx, echo, sources) })
	}
	return flows
}

// sendBack answers until ctx ends, and notes the requests of flows, by their source. An
// error of one packet, an ICMP message for instance, is no reason to end.
func sendBack(ctx context.Context, c net.PacketConn, sources map[string]*flow) {
	buf := make([]byte, 64)
	for ctx.Err() == nil {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			continue
		}
		if f := sources[from.String()]; f != nil && n == 8 {
			f.noteArrival(binary.BigEndian.Uint64(buf))
		}
		_, _ = c.WriteTo(buf[:n], from) // an unsent answer counts as lost
	}
}

func (f *flow) noteArrival(number uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.waiting[number]; ok {
		r.arrived = true
		f.waiting[number] = r
	}
}

func (f *flow) ask(ctx context.Context, to netip.Addr) {
	tick := time.NewTicker(sendEvery)
	defer tick.Stop()
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, echoPort))
	for ctx.Err() == nil {
		f.mu.Lock()
		f.next++
		n := f.next
		f.waiting[n] = request{sent: time.Now()}
		f.mu.Unlock()
		_, _ = f.conn.WriteTo(binary.BigEndian.AppendUint64(nil, n), addr) // not sent: lost
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (f *flow) listen(ctx context.Context) {
	buf := make([]byte, 64)
	for ctx.Err() == nil {
		n, _, err := f.conn.ReadFrom(buf)
		if err != nil || n != 8 {
			continue
		}
		number := binary.BigEndian.Uint64(buf)
		f.mu.Lock()
		delete(f.waiting, number)
		f.answered = max(f.answered, number)
		f.mu.Unlock()
	}
}

// flows waits until a packet sent from now on is answered.
func (f *flow) works(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	now := f.next
	f.mu.Unlock()
	eventually(t, fmt.Sprintf("%s reaches %s by %v", f.from.Name(), f.to.Name(), f.family), func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.answered <= now {
			return fmt.Errorf("packets from number %d on have no answer", now+1)
		}
		return nil
	})
}

// sent is the number of the last packet sent, answeredUpTo that of the last one with an
// answer.
func (f *flow) sent() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

func (f *flow) answeredUpTo() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answered
}

// gap is how long packets sent from a moment on were lost before some came
// through again.
func (f *flow) gap(from time.Time) (gap time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for number, r := range f.waiting {
		if number < f.answered && r.sent.After(from) {
			gap = max(gap, r.sent.Sub(from)+sendEvery)
		}
	}
	return gap
}

// lost are the packets sent between two moments that are not answered in time.
func (f *flow) lost(from, to time.Time) error { return f.lostMore(0, from, to) }

// lostMore is lost if these are more packets than spared.
func (f *flow) lostMore(spared int, from, to time.Time) error {
	for {
		f.mu.Lock()
		maps.DeleteFunc(f.waiting, func(_ uint64, r request) bool { return r.sent.Before(from) })
		count, arrived, first := 0, 0, to
		for _, r := range f.waiting {
			if !r.sent.Before(to) {
				continue
			}
			count++
			if r.arrived {
				arrived++
			}
			if r.sent.Before(first) {
				first = r.sent
			}
		}
		f.mu.Unlock()
		if count <= spared {
			return nil
		}
		if time.Since(to) > answerLimit {
			return fmt.Errorf("%d %v packets from %s to %s were lost, the first %v after the fault began; of %d the answer was lost",
				count, f.family, f.from.Name(), f.to.Name(), first.Sub(from).Round(time.Millisecond), arrived)
		}
		<-time.After(sendEvery)
	}
}
