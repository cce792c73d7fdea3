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

// burst is the most packets that are read before they are sent.
const burst = 64

// outQueue moves packets from a queue of the device to the peers.
type outQueue struct {
	*offloaded
	queue     *tun.Queue
	answers   *tun.Writer
	txSockets [2][]txSocket // by the datagrams' family
	splitter  offload.Splitter
	train     offload.Train
	errs      [2]*icmpErrors
	fragments fragmenter
	// arena holds the packets that were read since the last flush.
	arena []byte
}

// txSocket is a source port and its queued packets.
type txSocket struct {
	conn   *udpsock.SendConn
	sender *udpsock.Sender
	// peers are the destinations of the sender's messages, by index.
	peers [udpsock.MaxMessages]*peer
}

// newOutQueue returns the outQueue of the i-th queue.
func newOutQueue(d *offloaded, q *tun.Queue, i int) *outQueue {
	o := &outQueue{
		offloaded: d,
		queue:     q,
		answers:   tun.NewWriter(q),
		errs:      newICMPErrors(d.pathConfig),
		arena:     make([]byte, tun.MaxRead+burst*2048),
	}
	for _, f := range d.outer {
		for _, c := range d.sending[f][i*txPorts:][:txPorts] {
			o.txSockets[f] = append(o.txSockets[f], txSocket{conn: c, sender: udpsock.NewSender(c)})
		}
	}
	return o
}

// run moves packets until wake. A packet that run waited for is sent at once, so
// that no request is delayed. It collects packets only from a backlog: those have
// waited already.
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
		ended := errors.Is(err, os.ErrDeadlineExceeded)
		if err == nil || ended {
			err = o.flush()
		}
		switch {
		case ended && err == nil, errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("move packets out of %s: %w", o.device.Name(), err)
		}
	}
}

// send queues a packet that a read returned, or sends it. Its error is fatal.
func (o *outQueue) send(b []byte) error {
	var h virtio.NetHdr
	if h.Decode(b) != nil {
		o.drops.add(malformed)
		return nil
	}
	p := packet(b[virtio.HdrLen:])
	if o.splitter.Reset(&h, p) != nil || o.errs[p.family()] == nil {
		o.drops.add(malformed) // usually IPv6 from the host's own stack
		return nil
	}
	f := p.family()
	peer := o.table.lookup(f, p.destination())
	if peer == nil {
		o.drops.add(noRoute)
		o.answer(o.errs[f].noRoute(p))
		return nil
	}
	s := &o.txSockets[peer.outer][p.flowHash()%txPorts]
	super := h.GSOType != virtio.GSONone
	for o.splitter.Next(&o.train) {
		if err := o.queueTrain(s, peer); err != nil {
			return err
		}
		// The next train overwrites this one's headers.
		if super {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *outQueue) queueTrain(s *txSocket, p *peer) error {
	t := &o.train
	for {
		first := s.sender.Len()
		if last, ok := s.sender.Add(p.dest, t.Bufs, t.SegLen, t.Count); ok {
			// No new message if it joined one, several without UDP_SEGMENT.
			for i := first; i <= last; i++ {
				s.peers[i] = p
			}
			return nil
		}
		if err := o.flushSocket(s); err != nil {
			return err
		}
	}
}

func (o *outQueue) flush() error {
	for _, sockets := range o.txSockets {
		for i := range sockets {
			if s := &sockets[i]; s.sender.Len() > 0 {
				if err := o.flushSocket(s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (o *outQueue) flushSocket(s *txSocket) error {
	results, err := s.sender.Send()
	if err != nil {
		return err
	}
	for i := range results {
		r := &results[i]
		p := s.peers[i]
		s.peers[i] = nil
		switch {
		case r.Err == nil:
			p.traffic.tx.add(r.Packets, r.Bytes)
		case errors.Is(r.Err, unix.EMSGSIZE):
			o.tooBig(s, i, p)
		default:
			o.drops.addAll(sendError, r.Packets)
		}
	}
	return nil
}

// tooBig handles a message whose packets exceed the path's MTU, as plain does.
// The segments of a super-packet get one ICMP error.
func (o *outQueue) tooBig(s *txSocket, message int, to *peer) {
	var answered []byte // source and destination
	mtu := o.mtuTo(to)
	s.sender.Packets(message, func(bufs [][]byte) bool {
		p := packet(bytes.Join(bufs, nil))
		switch {
		case !p.dontFragment():
			if o.fragments.send(s.conn, p, mtu, to) != nil {
				o.drops.add(sendError)
			}
		case bytes.Equal(answered, p.addresses()):
			o.drops.add(tooBig)
		default:
			answered = p.addresses()
			o.drops.add(tooBig)
			o.answer(o.errs[p.family()].tooBig(p, mtu))
		}
		return true
	})
}

// answer writes an ICMP error to the device, as if a peer had sent it.
func (o *outQueue) answer(message []byte) {
	if message == nil {
		return
	}
	var none [virtio.HdrLen]byte
	if err := o.answers.Writev([][]byte{none[:], message}); err != nil {
		o.drops.add(deviceWriteError)
	}
}
