package fastpath

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// compare excludes rules for other packets.
func (r *rule) compare(v *expr.Cmp) {
	s := r.loaded[v.Register]
	equal := v.Op == expr.CmpOpEq
	if !equal && v.Op != expr.CmpOpNeq {
		r.use(s, "comparison")
		return
	}
	var same certainty
	switch s.kind {
	case address:
		same = r.inNetwork(s.mask, v.Data)
	case protocol:
		same = certaintyOf(s.mask != nil || len(v.Data) != 1 || v.Data[0] == unix.IPPROTO_TCP || v.Data[0] == unix.IPPROTO_UDP)
	case tcpFlags:
		same = r.flagsMatch(s.mask, v.Data)
	case connState:
		same = r.stateMatch(s.mask, v.Data)
	case interfaceName:
		same = certaintyOf(slices.ContainsFunc(r.names, func(name string) bool { return nameMatches(v.Data, name) }))
	case connMark:
		r.each("ct mark")
		same = maybe
	case family:
		same = never
		if len(v.Data) == 1 && v.Data[0] == unix.NFPROTO_IPV4 {
			same = always
		}
	default:
		r.use(s, "comparison")
		return
	}
	if !equal {
		same = always - same
	}
	r.match = min(r.match, same)
}

// hasMarks reports whether a mask takes in bits that the programs set. A rule
// would see them.
func (r *rule) hasMarks(mask []byte) bool {
	return len(mask) != 4 || binary.NativeEndian.Uint32(mask)&(r.marks.Sent|r.marks.Received) != 0
}

// certaintyOf is maybe or never.
func certaintyOf(possible bool) certainty {
	if possible {
		return maybe
	}
	return never
}

// inNetwork compares an address of the network, of which no more is known.
func (r *rule) inNetwork(mask, data []byte) certainty {
	n := r.network.Addr().As4()
	for i := range min(len(data), len(n)) {
		known := ^byte(0) << max(0, min(8, 8*(i+1)-r.network.Bits()))
		if mask != nil && i < len(mask) {
			known &= mask[i]
		}
		if (n[i]^data[i])&known != 0 {
			return never
		}
	}
	if ones := prefixLen(mask, len(data)); ones <= r.network.Bits() {
		return always
	}
	return maybe
}

func prefixLen(mask []byte, bytes int) int {
	if mask == nil {
		return 8 * bytes
	}
	last := 0
	for i, b := range mask {
		for bit := range 8 {
			if b&(0x80>>bit) != 0 {
				last = 8*i + bit + 1
			}
		}
	}
	return last
}

// flagsMatch compares the flags of a packet amid a TCP flow: ACK, perhaps PSH,
// and the bits of ECN. Those differ between packets.
func (r *rule) flagsMatch(mask, data []byte) certainty {
	const ack, known = 0x10, 0x37 // FIN, SYN, RST, ACK, URG
	if len(data) != 1 || r.opening {
		return maybe
	}
	m := byte(0xff)
	if len(mask) == 1 {
		m = mask[0]
	}
	if (data[0]^ack)&known&m != 0 {
		return never
	}
	if m&^known == 0 {
		return always
	}
	r.each("tcp flags")
	return maybe
}

func (r *rule) stateMatch(mask, data []byte) certainty {
	if len(data) != 4 {
		return maybe
	}
	state := r.state
	if len(mask) == 4 {
		state &= binary.NativeEndian.Uint32(mask)
	}
	if state == binary.NativeEndian.Uint32(data) {
		return always
	}
	return never
}

// nameMatches compares as nftables does: a pattern without a final zero is a
// prefix.
func nameMatches(pattern []byte, name string) bool {
	text := string(bytes.TrimRight(pattern, "\x00"))
	if len(text) == len(pattern) && len(pattern) < unix.IFNAMSIZ {
		return strings.HasPrefix(name, text)
	}
	return name == text
}
