package offload

import (
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/tun"
	"github.com/coreos/flannel/pkg/tun/virtio"
)

// pair returns two segments that merge.
func pair(udp bool) (a, b template) {
	a = template{
		udp: udp, ttl: 63, id: 0xffff, df: true, seq: 0xffffff00, ack: 9, window: 500,
		flags: tcpACK, options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, payload: make([]byte, 0x200),
	}
	return a, second(a)
}

// second returns the segment after that of pair.
func second(a template) template {
	a.id, a.seq = 0, 0x100 // both wrap around
	return a
}

// kinds returns the first segments of pairs: TCP and UDP over both families.
func kinds() (all []template) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			m, _ := pair(udp)
			m.v6 = v6
			all = append(all, m)
		}
	}
	return all
}

// Each case changes the second of two packets that would merge; the merger must
// leave both as they are. The untouched pair is the control.
func TestMergeRules(t *testing.T) {
	type edit func(a, b *template)
	for _, c := range []struct {
		name   string
		v6     bool
		udp    bool
		edit   edit
		raw    func(p []byte) // changes the finished second packet
		both   func(p []byte) // changes both
		merged bool
	}{
		{name: "TCP control", merged: true},
		{name: "UDP control", udp: true, merged: true},
		{name: "shorter last", edit: func(_, b *template) { b.payload = b.payload[:1] }, merged: true},
		{name: "longer second", edit: func(_, b *template) { b.payload = make([]byte, 0x201) }},
		{name: "UDP shorter last", udp: true, edit: func(_, b *template) { b.payload = b.payload[:1] }, merged: true},
		{name: "UDP longer second", udp: true, edit: func(_, b *template) { b.payload = make([]byte, 0x201) }},
		{name: "pure ACK", edit: func(_, b *template) { b.payload = nil }},
		{name: "PSH on the last", edit: func(_, b *template) { b.flags |= tcpPSH }, merged: true},
		{name: "FIN on the last", edit: func(_, b *template) { b.flags |= tcpFIN }, merged: true},
		{name: "PSH on the first", edit: func(a, _ *template) { a.flags |= tcpPSH }},
		{name: "FIN on the first", edit: func(a, _ *template) { a.flags |= tcpFIN }},
		{name: "CWR on the first", edit: func(a, _ *template) { a.flags |= tcpCWR }, merged: true},
		{name: "CWR on the second", edit: func(_, b *template) { b.flags |= tcpCWR }},
		{name: "CWR on both", edit: func(a, b *template) { a.flags |= tcpCWR; b.flags |= tcpCWR }},
		{name: "ECE on both", edit: func(a, b *template) { a.flags |= 0x40; b.flags |= 0x40 }, merged: true},
		{name: "ECE on one", edit: func(_, b *template) { b.flags |= 0x40 }},
		{name: "SYN", edit: func(a, b *template) { a.flags |= tcpSYN; b.flags |= tcpSYN }},
		{name: "RST", edit: func(a, b *template) { a.flags |= tcpRST; b.flags |= tcpRST }},
		{name: "URG", edit: func(a, b *template) { a.flags |= tcpURG; b.flags |= tcpURG }},
		{name: "no ACK", edit: func(a, b *template) { a.flags, b.flags = 0, 0 }},
		{name: "gap", edit: func(_, b *template) { b.seq++ }},
		{name: "repeated", edit: func(a, b *template) { b.seq = a.seq }},
		{name: "acknowledgement", edit: func(_, b *template) { b.ack++ }},
		{name: "window", edit: func(_, b *template) { b.window++ }},
		{name: "timestamp", edit: func(_, b *template) { b.options = slices.Clone(b.options); b.options[7]++ }},
		{name: "options' length", edit: func(_, b *template) { b.options = b.options[:8] }},
		{name: "TOS", edit: func(_, b *template) { b.tos = 1 }},
		{name: "TTL", edit: func(_, b *template) { b.ttl-- }},
		{name: "DF", edit: func(_, b *template) { b.df = false }},
		{name: "constant ID under DF", edit: func(a, b *template) { b.id = a.id }, merged: true},
		{name: "constant ID without DF", edit: func(a, b *template) { b.id, a.df, b.df = a.id, false, false }},
		{name: "counting ID without DF", edit: func(a, b *template) { a.df, b.df = false, false }, merged: true},
		{name: "jumping ID", edit: func(_, b *template) { b.id++ }},
		{name: "protocol", edit: func(_, b *template) { b.udp = true }},
		{name: "port", raw: func(p []byte) { p[ipMinLen]++; fixCsum(p) }},
		{name: "UDP port", udp: true, raw: func(p []byte) { p[ipMinLen+3]++; fixCsum(p) }},
		{name: "source", raw: func(p []byte) { p[ipSrc+3]++; setIPv4Csum(p, ipMinLen); fixCsum(p) }},
		{name: "destination", raw: func(p []byte) { p[ipDst+3]++; setIPv4Csum(p, ipMinLen); fixCsum(p) }},
		{name: "urgent pointer", raw: func(p []byte) { p[ipMinLen+tcpUrgent]++; fixCsum(p) }},
		{name: "reserved bits", raw: func(p []byte) { p[ipMinLen+tcpOffset] |= 1; fixCsum(p) }},
		{name: "more fragments", raw: func(p []byte) { p[ipFrag] |= 0x20; setIPv4Csum(p, ipMinLen) }},
		{name: "fragment", raw: func(p []byte) { p[ipFrag+1] = 1; setIPv4Csum(p, ipMinLen) }},
		{name: "reserved IP flag", raw: func(p []byte) { p[ipFrag] |= 0x80; setIPv4Csum(p, ipMinLen) }},
		{name: "IP version", raw: func(p []byte) { p[0] = 0x65 }},
		{name: "UDP without checksum", udp: true, raw: func(p []byte) { putBE16(p, ipMinLen+udpCsum, 0) }},
		{name: "UDP length", udp: true, raw: func(p []byte) { p[ipMinLen+udpLength+1]--; fixCsum(p) }},
		{name: "IP checksum", raw: func(p []byte) { p[ipCsum]++ }},
		{name: "TCP checksum", raw: func(p []byte) { p[ipMinLen+tcpCsum]++ }},
		{name: "UDP checksum", udp: true, raw: func(p []byte) { p[ipMinLen+udpCsum]++ }},
		{name: "IP options", both: func(p []byte) { p[0] = 0x46; setIPv4Csum(p, ipMinLen) }},
		{name: "fragments", both: func(p []byte) { p[ipFrag] |= 0x20; setIPv4Csum(p, ipMinLen) }},
		{name: "TCP offset", edit: func(_, b *template) { b.seq += 16 }, both: func(p []byte) { p[ipMinLen+tcpOffset] = 4 << 4; fixCsum(p) }},
		{name: "UDP without checksums", udp: true, both: func(p []byte) { zeroSum(p); putBE16(p, ipMinLen+udpCsum, 0) }},
		{name: "UDP's other zero", udp: true, both: zeroSum, merged: true},
		{name: "TCP zero", both: zeroSum, merged: true},
		{name: "TCP's other zero", both: func(p []byte) { zeroSum(p); putBE16(p, ipMinLen+tcpCsum, 0xffff) }},
		{name: "IP zero", edit: zeroIP, merged: true},
		{name: "IP's other zero", edit: zeroIP, both: func(p []byte) { putBE16(p, ipCsum, 0xffff) }},
		{name: "damaged payload", raw: func(p []byte) { p[len(p)-1]++ }},
		{name: "TCP over IPv6 control", v6: true, merged: true},
		{name: "UDP over IPv6 control", v6: true, udp: true, merged: true},
		{name: "IPv6 payload", v6: true, raw: func(p []byte) { p[len(p)-1]++ }},
		{name: "traffic class", v6: true, edit: func(_, b *template) { b.tos = 1 }},
		{name: "flow label", v6: true, raw: func(p []byte) { p[3]++ }},
		{name: "hop limit", v6: true, edit: func(_, b *template) { b.ttl-- }},
		{name: "IPv6 source", v6: true, raw: func(p []byte) { p[ip6Src+15]++; fixCsum(p) }},
		{name: "IPv6 destination", v6: true, raw: func(p []byte) { p[ip6Len-16]++; fixCsum(p) }},
		{name: "IPv6 port", v6: true, udp: true, raw: func(p []byte) { p[ip6Len+1]++; fixCsum(p) }},
		{name: "IPv6 gap", v6: true, edit: func(_, b *template) { b.seq++ }},
		{name: "extension header", v6: true, both: func(p []byte) { p[ip6Next] = protoDstOpts; p[ip6Len], p[ip6Len+1] = protoTCP, 0 }},
		{name: "IPv6 length", v6: true, raw: func(p []byte) { p[ip6PayloadLen+1]++ }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(c.udp)
			a.v6, b.v6 = c.v6, c.v6
			if c.edit != nil {
				c.edit(&a, &b)
			}
			packets := [][]byte{a.build(false), b.build(false)}
			if c.both != nil {
				c.both(packets[0])
				c.both(packets[1])
			}
			if c.raw != nil {
				c.raw(packets[1])
			}
			out := merge(NewMerger(everything), packets)
			if merged := len(out) == 1; merged != c.merged {
				t.Errorf("merged: %v, want %v", merged, c.merged)
			}
			if got := remerge(t, packets); !equal(blurID(got), blurID(packets)) {
				t.Error("split of the merge does not restore the packets")
			}
		})
	}
}

// zeroSum changes a packet's payload so that the transport checksum comes out
// as zero.
func zeroSum(p []byte) {
	field := ipMinLen + udpCsum
	if p[ipProto] == protoTCP {
		field = ipMinLen + tcpCsum
	}
	putBE16(p, len(p)-2, be16(p, field))
	fixCsum(p)
}

// zeroIP gives both packets the IP ID with which the IP checksum comes out as
// zero.
func zeroIP(a, b *template) {
	a.id = 0
	a.id = be16(a.build(false), ipCsum)
	b.id = a.id
}

func TestMergeStopsAfterTheEnd(t *testing.T) {
	for name, last := range map[string]func(m *template){
		"short": func(m *template) { m.payload = m.payload[:100] },
		"PSH":   func(m *template) { m.flags |= tcpPSH },
	} {
		a, b := pair(false)
		last(&b)
		c := a
		c.id, c.seq, c.flags, c.payload = 1, b.seq+uint32(len(b.payload)), tcpACK, b.payload
		out := merge(NewMerger(MergeConfig{TCP: true}), [][]byte{a.build(false), b.build(false), c.build(false)})
		if len(out) != 2 {
			t.Errorf("%s: three packets became %d, want 2", name, len(out))
		}
	}
}

// A corrupted first packet is detected when the next one would be joined.
func TestMergeVerifiesTheFirstPacket(t *testing.T) {
	a, b := pair(false)
	packets := [][]byte{a.build(false), b.build(false)}
	packets[0][len(packets[0])-1]++
	if out := merge(NewMerger(MergeConfig{TCP: true}), packets); len(out) != 2 {
		t.Fatalf("a damaged packet was merged: %d results", len(out))
	}
}

// A packet that is not all that there is was padded on its way, or lies.
func TestMergeLeavesTrailingBytes(t *testing.T) {
	for _, udp := range []bool{false, true} {
		for _, which := range []int{0, 1} {
			a, b := pair(udp)
			packets := [][]byte{a.build(false), b.build(false)}
			p := packets[which]
			putBE16(p, ipTotalLen, uint16(len(p)-1))
			setIPv4Csum(p, ipMinLen)
			out := merge(NewMerger(everything), packets)
			if len(out) != 2 || len(out[which]) != virtio.HdrLen+len(p) {
				t.Errorf("UDP %v: a packet with a byte behind it was merged", udp)
			}
		}
	}
}

func TestMergeHonoursItsConfig(t *testing.T) {
	for _, a := range kinds() {
		packets := [][]byte{a.build(false), second(a).build(false)}
		off := MergeConfig{TCP: a.udp || a.v6, TCPv6: a.udp || !a.v6, UDP: !a.udp}
		if out := merge(NewMerger(off), packets); len(out) != 2 {
			t.Errorf("IPv6 %v, UDP %v is merged, though it is switched off", a.v6, a.udp)
		}
	}
}

func TestMergeKeepsWithinAPacket(t *testing.T) {
	m, _ := pair(false)
	m.payload = make([]byte, 1448)
	var packets [][]byte
	for range 100 {
		packets = append(packets, m.build(false))
		m.seq += 1448
		m.id++
	}
	out := merge(NewMerger(MergeConfig{TCP: true}), packets)
	for _, w := range out {
		if len(w) > tun.MaxRead {
			t.Errorf("a packet of %d bytes", len(w))
		}
	}
	if len(out) != 3 { // 45 segments fit
		t.Errorf("100 segments of 1448 bytes became %d packets, want 3", len(out))
	}
}

func TestFlushOfNothing(t *testing.T) {
	m := NewMerger(everything)
	if m.Flush() != nil {
		t.Error("an empty merger returned something")
	}
	m.Add(make([]byte, 3))
	if m.Flush() == nil || m.Flush() != nil {
		t.Error("a packet was not returned exactly once")
	}
}
