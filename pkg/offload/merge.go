package offload

// maxMerge bounds the packets of a super-packet. The kernel refuses UDP ones of
// more than UDP_MAX_SEGMENTS, 64 before Linux 6.9 (virtio_net_hdr_to_skb,
// linux/virtio_net.h); for TCP the length of an IPv4 packet is the limit that
// counts.
const maxMerge = 64

// maxPacket is the largest total length of an IPv4 packet.
const maxPacket = 65535

// MergeConfig says which flows are merged: those whose super-packets the TUN
// takes.
type MergeConfig struct{ TCP, UDP bool }

// Merger joins consecutive packets of a flow.
//
// Only the last packet seen can be joined with the next: packets of one flow
// arrive side by side where they were sent as a train, since the receiving
// kernel's GRO collects by flow too. So order is kept between all packets, not
// only within a flow, and there is nothing to look up.
type Merger struct {
	cfg MergeConfig
	// open is what the next packet may continue. spare takes turns with it, so
	// that what Add returned lasts until the next call.
	open, spare *super
}

// NewMerger returns an empty Merger.
func NewMerger(cfg MergeConfig) *Merger {
	return &Merger{cfg: cfg, open: new(super), spare: new(super)}
}

// Add takes the next packet that arrived. Where pkt ends what was collected so
// far, Add returns that, ready for tun.Queue.Writev: an encoded vnet header,
// then the bytes. It returns nil otherwise.
//
// The Merger writes to the packets and points into them, until the result that
// they became part of has been written out. A result is valid until the next
// call of Add or Flush.
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

// Flush returns what was collected and not yet returned, or nil. It must be
// called when the packets at hand have all been added, so that none waits.
func (m *Merger) Flush() [][]byte {
	if m.open.n == 0 {
		return nil
	}
	m.open, m.spare = m.spare, m.open
	m.open.n = 0
	return m.spare.finish()
}
