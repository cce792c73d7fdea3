package udp

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/offload"
	"github.com/coreos/flannel/pkg/tun"
	"github.com/coreos/flannel/pkg/tun/virtio"
	"github.com/coreos/flannel/pkg/udpsock"
)

// receiveBatch is the most messages of one system call, each of up to 64 KiB.
const receiveBatch = 16

// inQueue moves packets from a socket to a queue of the device.
type inQueue struct {
	*offloaded
	conn     *udpsock.Conn
	receiver *udpsock.Receiver
	merger   *offload.Merger
	writer   *tun.Writer

	// from is the sender of the packets in the merger, bytes their length.
	from  *peer
	bytes int
	// overflow is the part of the socket's Drops that is counted already.
	overflow uint64
}

func newInQueue(d *offloaded, q *tun.Queue, c *udpsock.Conn) *inQueue {
	f := d.device.Features()
	return &inQueue{
		offloaded: d,
		conn:      c,
		receiver:  udpsock.NewReceiver(c, receiveBatch),
		merger:    offload.NewMerger(offload.MergeConfig{TCP: f.WriteTSO4 == nil, TCPv6: f.WriteTSO6 == nil, UDP: f.WriteUSO == nil}),
		writer:    tun.NewWriter(q),
	}
}

// run moves packets until wake. It passes on what has arrived, and does not wait
// for more.
func (in *inQueue) run() error {
	for {
		n, err := in.receiver.Receive()
		for i := 0; i < n && err == nil; i++ {
			err = in.message(in.receiver.Message(i))
		}
		if err == nil {
			err = in.write(in.merger.Flush())
		}
		in.countOverflow()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("move packets into %s: %w", in.device.Name(), err)
		}
	}
}

// countOverflow counts the socket's drops since the last call.
func (in *inQueue) countOverflow() {
	if dropped := in.conn.Drops(); dropped != in.overflow {
		in.drops.addAll(receiveOverflow, int(dropped-in.overflow))
		in.overflow = dropped
	}
}

// message checks each packet of a message and merges them.
func (in *inQueue) message(m udpsock.Message) error {
	for {
		p := packet(m.Data[:min(m.SegLen, len(m.Data))])
		m.Data = m.Data[len(p):]
		peer, why := in.table.admit(m.From, m.Interface, p)
		if why != admitted {
			in.drops.add(why)
		} else {
			done := in.merger.Add(p)
			if done != nil {
				if err := in.write(done); err != nil {
					return err
				}
			}
			in.from = peer
			in.bytes += len(p)
		}
		if len(m.Data) == 0 {
			return nil
		}
	}
}

// write writes a result of the merger to the device: nil, or a vnet header, a
// packet, and one buffer for each further packet. Its error is fatal.
func (in *inQueue) write(bufs [][]byte) error {
	if bufs == nil {
		return nil
	}
	from, packets, bytes := in.from, len(bufs)-1, in.bytes
	in.bytes = 0
	err := in.writer.Writev(bufs)
	switch {
	case err == nil:
		from.traffic.rx.add(packets, bytes)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed):
		return err
	case errors.Is(err, unix.EINVAL) && packets > 1:
		return in.refused(bufs, from, err)
	default:
		in.drops.addAll(deviceWriteError, packets)
	}
	return nil
}

// refused handles a super-packet that the kernel refused although it took the
// probe's: merging ends, and its packets are written one by one.
func (in *inQueue) refused(bufs [][]byte, from *peer, cause error) error {
	in.writeRefused.Store(&cause)
	in.merger = offload.NewMerger(offload.MergeConfig{})
	var h virtio.NetHdr
	var splitter offload.Splitter
	if err := errors.Join(h.Decode(bufs[0]), splitter.Reset(&h, bytes.Join(bufs[1:], nil))); err != nil {
		in.drops.addAll(deviceWriteError, len(bufs)-1)
		return nil
	}
	var none [virtio.HdrLen]byte
	for train := (offload.Train{}); splitter.Next(&train); {
		// A header and a payload for each packet.
		for p := range slices.Chunk(train.Bufs, 2) {
			in.from, in.bytes = from, len(p[0])+len(p[1])
			if err := in.write([][]byte{none[:], slices.Concat(p...)}); err != nil {
				return err
			}
		}
	}
	return nil
}
