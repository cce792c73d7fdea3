package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/coreos/flannel/pkg/checksum"
)

// withOptions is a packet with a header of these options, padded to words.
func withOptions(options, payload []byte, flags uint16) packet {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	p := newPacket("10.5.1.2", "10.5.2.2", 17, nil)[:ipv4HeaderLen]
	p = append(append(p, options...), payload...)
	p[0] = 4<<4 | byte((ipv4HeaderLen+len(options))/4)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[4:], 0xbeef) // ID
	binary.BigEndian.PutUint16(p[6:], flags)
	return p
}

// pieces collects copies of the fragments.
func pieces(cut *fragmenter, p packet, mtu int) (all []packet, err error) {
	err = cut.each(p, mtu, func(f packet) error {
		all = append(all, bytes.Clone(f))
		return nil
	})
	return all, err
}

// checkFragments holds fragments to RFC 791: each is a packet of the path's size
// with a good checksum; together they are the payload of p, no byte twice or
// missing; only the last has p's own "more fragments" bit.
func checkFragments(t *testing.T, p packet, mtu int, all []packet) {
	t.Helper()
	at := int(p.flags()&offsetMask) * 8
	var payload []byte
	for i, f := range all {
		if !f.wellFormed() || len(f) > mtu {
			t.Fatalf("fragment %d of %d bytes is not one packet of up to %d", i, len(f), mtu)
		}
		if sum := checksum.Finish(checksum.Add(0, f[:f.headerLen()])); len(all) > 1 && sum != 0 {
			t.Fatalf("fragment %d: header checksum is off by %#x", i, sum)
		}
		if offset := int(f.flags()&offsetMask) * 8; offset != at+len(payload) {
			t.Fatalf("fragment %d is at %d, want %d", i, offset, at+len(payload))
		}
		if more, want := f.flags()&flagMF != 0, i < len(all)-1 || p.flags()&flagMF != 0; more != want {
			t.Fatalf("fragment %d of %d: more fragments: %t, want %t", i, len(all), more, want)
		}
		if !bytes.Equal(f[4:6], p[4:6]) || !bytes.Equal(f[8:10], p[8:10]) || !bytes.Equal(f[12:20], p[12:20]) || f[1] != p[1] {
			t.Fatalf("fragment %d: header %x of packet %x", i, f[:20], p[:20])
		}
		payload = append(payload, f[f.headerLen():]...)
	}
	if !bytes.Equal(payload, p[p.headerLen():]) {
		t.Fatal("the fragments are not the packet")
	}
}

func TestFragments(t *testing.T) {
	payload := make([]byte, 3000)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	for _, c := range []struct {
		name    string
		options []byte
		size    int
		flags   uint16
		mtu     int
		lengths []int
	}{
		{"fits", nil, 1000, 0, 1020, []int{1020}},
		{"fits, not in units of 8 bytes", nil, 1001, 0, 1021, []int{1021}},
		{"one byte more", nil, 1001, 0, 1020, []int{1020, 21}},
		{"units of 8 bytes", nil, 1001, 0, 1019, []int{1012, 29}},
		{"three", nil, 3000, 0, 1372, []int{1372, 1372, 316}},
		{"middle fragment", nil, 1440, flagMF | 185, 1372, []int{1372, 108}},
		{"last fragment", nil, 1440, 185, 1372, []int{1372, 108}},
		{"smallest path", nil, 100, 0, 68, []int{68, 68, 24}},
		// Record route (7) stays in the first fragment; router alert (0x94) is copied.
		{"options", []byte{1, 7, 3, 4, 0x94, 4, 0, 0}, 1000, 0, 500, []int{500, 496, 80}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := withOptions(c.options, payload[:c.size], c.flags)
			all, err := pieces(new(fragmenter), p, c.mtu)
			if err != nil {
				t.Fatal(err)
			}
			checkFragments(t, p, c.mtu, all)
			var lengths []int
			for _, f := range all {
				lengths = append(lengths, len(f))
			}
			if len(lengths) != len(c.lengths) {
				t.Fatalf("lengths %v, want %v", lengths, c.lengths)
			}
			for i := range lengths {
				if lengths[i] != c.lengths[i] {
					t.Fatalf("lengths %v, want %v", lengths, c.lengths)
				}
			}
			if c.options != nil {
				if got := all[0][20:28]; !bytes.Equal(got, c.options) {
					t.Errorf("first fragment's options %x, want %x", got, c.options)
				}
				if got := all[1][20:24]; all[1].headerLen() != 24 || !bytes.Equal(got, c.options[4:8]) {
					t.Errorf("second fragment's options %x, want %x", got, c.options[4:8])
				}
			}
		})
	}
}

func TestUnfragmentable(t *testing.T) {
	payload := make([]byte, 1000)
	for name, c := range map[string]struct {
		p   packet
		mtu int
	}{
		"option longer than the header": {withOptions([]byte{7, 9, 4, 0}, payload, 0), 500},
		"option of length 0":            {withOptions([]byte{7, 0, 4, 0}, payload, 0), 500},
		"option without length":         {withOptions([]byte{1, 1, 1, 7}, payload, 0), 500},
		"beyond the largest packet":     {withOptions(nil, payload, 8190), 500},
		"path without room":             {withOptions(nil, payload, 0), 27},
	} {
		if all, err := pieces(new(fragmenter), c.p, c.mtu); !errors.Is(err, errUnfragmentable) || all != nil {
			t.Errorf("%s: %d fragments, %v", name, len(all), err)
		}
	}
	failed := errors.New("failed")
	calls := 0
	err := new(fragmenter).each(withOptions(nil, payload, 0), 500, func(packet) error { calls++; return failed })
	if !errors.Is(err, failed) || calls != 1 {
		t.Errorf("a failing send was called %d times: %v", calls, err)
	}
}

// FuzzFragments: whatever the packet and the path, what comes out is the packet.
// Fragments of fragments, as a second narrow path would make them, are too.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{1, 7, 3, 4, 0x94, 4, 0, 0}, make([]byte, 3000), uint16(0), uint16(1372), uint16(576))
	f.Add([]byte{}, make([]byte, 1480), uint16(flagMF|185), uint16(68), uint16(68))
	f.Add([]byte{7, 0}, make([]byte, 100), uint16(8191), uint16(90), uint16(20))
	f.Fuzz(func(t *testing.T, options, payload []byte, flags, mtu, narrower uint16) {
		options, payload = options[:min(len(options), maxHeader-ipv4HeaderLen)], payload[:min(len(payload), maxPacket-maxHeader)]
		cut := new(fragmenter)
		p := withOptions(bytes.Clone(options), payload, flags&^flagDF)
		all, err := pieces(cut, p, int(mtu))
		if err != nil {
			return
		}
		checkFragments(t, p, int(mtu), all)
		var again []packet
		for _, piece := range all {
			smaller, err := pieces(cut, piece, int(narrower))
			if err != nil {
				return
			}
			again = append(again, smaller...)
		}
		checkFragments(t, p, max(int(mtu), int(narrower)), again)
	})
}

func TestFragmentingAllocatesNothing(t *testing.T) {
	p := withOptions([]byte{0x94, 4, 0, 0}, make([]byte, 1400), 0)
	f := new(fragmenter)
	send := func(packet) error { return nil }
	if n := testing.AllocsPerRun(100, func() { f.each(p, 1000, send) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
