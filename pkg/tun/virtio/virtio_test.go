package virtio

import (
	"encoding/binary"
	"errors"
	"testing"
)

func TestNetHdrRoundTrip(t *testing.T) {
	want := NetHdr{Flags: FlagNeedsCsum, GSOType: GSOTCPv4 | GSOECN, HdrLen: 0x1122, GSOSize: 0x3344, CsumStart: 0x5566, CsumOffset: 0x7788}
	var b [HdrLen]byte
	want.Encode(&b)
	var got NetHdr
	if err := got.Decode(b[:]); err != nil || got != want {
		t.Fatalf("decoded %+v, %v; want %+v", got, err, want)
	}
	if b[0] != 1 || b[1] != 0x81 || binary.NativeEndian.Uint16(b[4:]) != 0x3344 {
		t.Errorf("layout % x is not struct virtio_net_hdr", b)
	}
	if err := got.Decode(b[:HdrLen-1]); !errors.Is(err, ErrShort) {
		t.Errorf("decode of 9 bytes: %v", err)
	}
}
