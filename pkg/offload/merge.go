package offload

// maxMerge bounds the packets of a super-packet. The kernel refuses UDP ones of
// more than UDP_MAX_SEGMENTS, 64 before Linux 6.9 (virtio_net_hdr_to_skb,
// linux/virtio_net.h). TCP reaches maxPacket first.
const maxMerge = 64

// maxPacket is the largest total length of an IPv4 packet.
const maxPacket = 65535

// MergeConfig selects the flows to merge: those whose super-packets the TUN takes.
type MergeConfig struct{ TCP, UDP bool }

// Merger joins consecutive packets of a flow.
//
// It joins the next packet only to the last one. Packets of a train arrive side
// by side, since the receiving kernel's GRO collects by flow too. So all packets
// keep their order, and no flow table is needed.
type Merger struct {
	cfg MergeConfig
	// open is the super-packet that the next packet may continue. It alternates
	// with spare, so that a result of Add lasts until the next call.
	open, spare *super
}

// NewMerger returns an empty Merger.
func NewMerger(cfg MergeConfig) *Merger {
	return &Merger{cfg: cfg, open: new(super), spare: new(super)}
}

// Add adds the next received packet. If pkt does not continue the open
// super-packet, Add returns that one for tun.Writer.Writev: an encoded vnet
// header, then the bytes. Otherwise it returns nil.
//
// The Merger writes to the packets and points into them until their result is
// written out. A result is valid until the next call of Add or Flush.
func (m *Merger) Add(pkt []byte) [][]byte {
	var p packet
	ok := p.parse(pkt, m.cfg)
	if ok && m.open.n > 0 && m.open.join(pkt, &p) {
		return nil
	}
	done := m.Flush()
	m.open.start(pkt, &p, ok)
	return done
}

// Flush returns the open super-packet, or nil. The caller flushes after the last
// packet of a batch, so that no packet waits.
func (m *Merger) Flush() [][]byte {
	if m.open.n == 0 {
		return nil
	}
	m.open, m.spare = m.spare, m.open
	m.open.n = 0
	return m.spare.finish()
}
