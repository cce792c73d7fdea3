package udpsock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A lone datagram has its own system call, sendto.
func TestLoneDatagrams(t *testing.T) {
	in, out := listen1(t, Config{}), listen1(t, Config{})
	s, r, to := NewSender(out), NewReceiver(in, 8), dest(t, in.LocalAddr())
	lone := [][]byte{[]byte("one"), bytes.Repeat([]byte("x"), 1500), {0}}
	for _, b := range lone {
		if _, ok := s.Add(to, [][]byte{b}, len(b), 1); !ok {
			t.Fatal("no room")
		}
		res := send(t, s)
		if len(res) != 1 || res[0].Err != nil || res[0].Packets != 1 || res[0].Bytes != len(b) {
			t.Fatalf("results %+v", res)
		}
	}
	for i, got := range datagrams(t, r, len(lone)) {
		if !bytes.Equal(got, lone[i]) {
			t.Errorf("datagram %d has %d bytes, want %d", i, len(got), len(lone[i]))
		}
	}
	for _, c := range []struct {
		bytes int
		want  error
	}{{65508, unix.EMSGSIZE}, {9, nil}} {
		if _, ok := s.Add(to, [][]byte{make([]byte, c.bytes)}, c.bytes, 1); !ok {
			t.Fatal("no room")
		}
		if res := send(t, s); !errors.Is(res[0].Err, c.want) {
			t.Errorf("%d bytes: %v, want %v", c.bytes, res[0].Err, c.want)
		}
	}
}

// The awaited message is returned at once, alone. Later messages follow together.
func TestReceiveHandsOverWhatItWaitedFor(t *testing.T) {
	in, out := listen1(t, Config{NoGRO: true}), listen1(t, Config{})
	r := NewReceiver(in, 8)
	once := func() (over bool) {
		if err := in.control(func(fd int) error { over = r.receiveOnce(uintptr(fd)); return nil }); err != nil {
			t.Fatal(err)
		}
		return over
	}
	r.limit = len(r.msgs)
	if once() {
		t.Fatalf("received %d of nothing, %v", r.n, r.errno)
	}
	for i := range byte(4) {
		if err := out.Send([]byte{'0' + i}, in.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	if !once() || r.n != 1 || string(r.Message(0).Data) != "0" {
		t.Errorf("received %d messages after the wait, the first %q", r.n, r.Message(0).Data)
	}
	n, err := r.Receive()
	if err != nil || n != 3 || string(r.Message(2).Data) != "3" {
		t.Errorf("received %d messages then, %v", n, err)
	}
}

// A segment size of the kernel that exceeds the message is limited.
func TestSegmentSizeIsWithinTheMessage(t *testing.T) {
	in, out := listen1(t, Config{NoGRO: true}), listen1(t, Config{})
	r := NewReceiver(in, 1)
	if err := out.Send([]byte("12345"), in.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Receive(); err != nil {
		t.Fatal(err)
	}
	for said, want := range map[int32]int{2: 2, 5: 5, 6: 5, 1000: 5, 0: 5, -1: 5} {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&r.controls[0][0]))
		h.Level, h.Type = unix.SOL_UDP, unix.UDP_GRO
		h.SetLen(unix.CmsgLen(4))
		binary.NativeEndian.PutUint32(r.controls[0][unix.CmsgLen(0):], uint32(said))
		r.msgs[0].hdr.SetControllen(unix.CmsgSpace(4))
		if got := r.Message(0).SegLen; got != want {
			t.Errorf("segments of %d in a message of 5 became %d, want %d", said, got, want)
		}
	}
}
