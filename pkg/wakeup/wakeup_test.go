package wakeup

import (
	"os"
	"testing"
)

func TestReadable(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var reader Reader
	if reader.Readable(r.Fd()) {
		t.Error("an empty pipe is readable")
	}
	go w.Write([]byte{1})
	for tries := 0; !reader.Readable(r.Fd()); tries++ {
		if tries == 100 {
			t.Fatal("a pipe with a byte never became readable")
		}
	}
	if n := testing.AllocsPerRun(100, func() { reader.Readable(r.Fd()) }); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
	reader.Took(dense + 1)
	if reader.Readable(r.Fd()) {
		t.Error("waits for itself under a dense load")
	}
	if !reader.Readable(r.Fd()) {
		t.Error("does not wait for itself after the dense load has ended")
	}
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if !reader.Readable(r.Fd()) {
		t.Error("the end of a pipe is not readable: its reader would never learn of it")
	}
}
