package udp

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/offload"
	"github.com/coreos/flannel/pkg/tun"
	"github.com/coreos/flannel/pkg/tun/virtio"
	"github.com/coreos/flannel/pkg/udpsock"
)

// burst is the most packets that are read before what they make is sent.
const burst = 64

// outQueue carries packets from a queue of the device to the peers.
type outQueue struct {
	*offloaded
	queue    *tun.Queue
	answers  *tun.Writer
	lanes    [lanes]lane
	splitter offload.Splitter
	train    offload.Train
	errs     *icmpErrors
	cut      fragmenter
	// arena holds what was read since the last flush.
	arena []byte
}

// lane is a source port, and what waits to be sent from it.
type lane struct {
	conn   *udpsock.Conn
	sender *udpsock.Sender
	// peers are the receivers of the sender's messages, by index.
	peers [udpsock.MaxMessages]*peer
}

func newOutQueue(d *offloaded, q *tun.Queue, socks []*udpsock.Conn) *outQueue {
	o := &outQueue{
		offloaded: d,
		queue:     q,
		answers:   tun.NewWriter(q),
		errs:      newICMPErrors(d.network, d.own),
		arena:     make([]byte, tun.MaxRead+burst*2048),
	}
	for i, c := range socks {
		o.lanes[i].conn, o.lanes[i].sender = c, udpsock.NewSender(c)
	}
	return o
}

// run carries packets until woken. A packet that had to be waited for is sent
// at once, so that no request waits for company. Only if there is a backlog are
// packets collected, as they have waited already.
func (o *outQueue) run() error {
	for {
		n, waited, err := o.queue.Read(o.arena)
		for used, packets := 0, 0; err == nil && n > 0; {
			if err = o.send(o.arena[used : used+n]); err != nil || waited {
				break
			}
			used += n
			packets++
			if packets == burst || len(o.arena)-used < tun.MaxRead {
				break
			}
			n, err = o.queue.TryRead(o.arena[used:])
		}
		if err == nil {
			err = o.flush()
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("carry packets out of %s: %w", o.device.Name(), err)
		}
	}
}

// send queues what a read returned, or sends it. The error is fatal.
func (o *outQueue) send(b []byte) error {
	var h virtio.NetHdr
	if h.Decode(b) != nil {
		o.drops.add(malformed)
		return nil
	}
	p := ipv4Packet(b[virtio.HdrLen:])
	if o.splitter.Reset(&h, p) != nil {
		o.drops.add(malformed) // IPv6 from the host's own stack, as a rule
		return nil
	}
	peer := o.table.lookup(p.destination())
	if peer == nil {
		o.drops.add(noRoute)
		o.answer(o.errs.unreachable(p, codeNetUnreachable, 0))
		return nil
	}
	l := &o.lanes[p.flowHash()%lanes]
	super := h.GSOType != virtio.GSONone
	for o.splitter.Next(&o.train) {
		if err := o.queueTrain(l, peer); err != nil {
			return err
		}
		// The next train's headers, and the next super-packet's, go where this
		// one's are.
		if super {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *outQueue) queueTrain(l *lane, p *peer) error {
	t := &o.train
	for {
		first := l.sender.Len()
		if last, ok := l.sender.Add(p.dest, t.Bufs, t.SegLen, t.Count); ok {
			// None if it joined a message, many without UDP_SEGMENT.
			for i := first; i <= last; i++ {
				l.peers[i] = p
			}
			return nil
		}
		if err := o.flushLane(l); err != nil {
			return err
		}
	}
}

func (o *outQueue) flush() error {
	for i := range o.lanes {
		if l := &o.lanes[i]; l.sender.Len() > 0 {
			if err := o.flushLane(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *outQueue) flushLane(l *lane) error {
	results, err := l.sender.Send()
	if err != nil {
		return err
	}
	for i := range results {
		r := &results[i]
		p := l.peers[i]
		l.peers[i] = nil
		switch {
		case r.Err == nil:
			p.traffic.tx.addAll(r.Packets, r.Bytes)
		case errors.Is(r.Err, unix.EMSGSIZE):
			o.tooBig(l, i, p)
		default:
			o.drops.addAll(sendError, r.Packets)
		}
	}
	return nil
}

// tooBig handles a message whose packets are larger than the path to the peer,
// as plain does. Segments of a super-packet have one answer.
func (o *outQueue) tooBig(l *lane, message int, to *peer) {
	var answered []byte // addresses
	mtu := o.mtus.to(to.addr, o.uplink.MTU) - encapsulation
	l.sender.Packets(message, func(bufs [][]byte) bool {
		p := ipv4Packet(bytes.Join(bufs, nil))
		switch {
		case !p.dontFragment():
			err := o.cut.each(p, mtu, func(fragment ipv4Packet) error {
				err := l.conn.Send(fragment, to.addr)
				if err == nil {
					to.traffic.tx.add(len(fragment))
				}
				return err
			})
			if err != nil {
				o.drops.add(sendError)
			}
		case bytes.Equal(answered, p[12:20]):
			o.drops.add(tooBig)
		default:
			answered = p[12:20]
			o.drops.add(tooBig)
			o.answer(o.errs.unreachable(p, codeFragNeeded, mtu))
		}
		return true
	})
}

// answer hands an ICMP error to the kernel as if it had come from a peer.
func (o *outQueue) answer(message []byte) {
	if message == nil {
		return
	}
	var none [virtio.HdrLen]byte
	if err := o.answers.Writev([][]byte{none[:], message}); err != nil {
		o.drops.add(deviceWriteError)
	}
}
