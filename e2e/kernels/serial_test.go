package main

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestFollow(t *testing.T) {
	long := strings.Repeat("x", 1<<21)
	var out strings.Builder
	code, err := follow(strings.NewReader("one\r\n"+long+"\r\n"+"in GUEST-EXIT 4\nGUEST-EXIT 3\r\nlast"), "6.1: ", &out)
	if want := "6.1: one\n6.1: " + long + "\n6.1: in GUEST-EXIT 4\n6.1: last\n"; err != nil || code != "3" || out.String() != want {
		t.Errorf("code %q, %v, %d bytes, want %d", code, err, out.Len(), len(want))
	}
}

// The guest goes on although its lines cannot be written.
func TestFollowWithoutOutput(t *testing.T) {
	r, w := io.Pipe()
	w.CloseWithError(errors.New("closed"))
	r.Close()
	serial := strings.NewReader(strings.Repeat("line\n", 10000) + "GUEST-EXIT 0\n")
	if code, err := follow(serial, "", w); code != "0" || err == nil || serial.Len() > 0 {
		t.Errorf("code %q, %v, %d bytes are left", code, err, serial.Len())
	}
}
