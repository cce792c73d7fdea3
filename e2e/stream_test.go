package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// pause is the time between two writes of a stream. A stream that sent as fast as it can
// would keep the processor from the daemon that it tests.
const pause = 2 * time.Millisecond

// stream is a TCP connection that carries bytes all the time.
type stream struct {
	received atomic.Int64
	err      atomic.Pointer[error]
}

// startStream begins to send from one container to another, until the test ends.
func startStream(t *testing.T, from, to *netnstest.Host) *stream {
	t.Helper()
	return startStreamWithin(t, from, to, 0)
}

// startStreamWithin has at most that many bytes on the way, so that the stream fills no
// queue; 0 is no limit.
func startStreamWithin(t *testing.T, from, to *netnstest.Host, window int64) *stream {
	t.Helper()
	l, err := to.Listen(t.Context(), "tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	out, err := from.Dial(t.Context(), "tcp4", fmt.Sprintf("%v:%d", to.Addr().Addr(), l.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := new(stream)
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		buf, answer := make([]byte, cmp.Or(window, 64<<10)), make([]byte, 1)
		next := time.NewTicker(pause)
		defer next.Stop()
		for ; ; <-next.C {
			_, err := out.Write(buf)
			if err == nil && window > 0 {
				_, err = out.Read(answer)
			}
			if err != nil {
				s.err.Store(&err)
				return
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 64<<10)
		for {
			n, err := in.Read(buf)
			total := s.received.Add(int64(n))
			if err == nil && window > 0 && total/window > (total-int64(n))/window {
				_, err = in.Write(buf[:1])
			}
			if err != nil && !errors.Is(err, io.EOF) {
				s.err.Store(&err)
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		out.Close()
		in.Close()
		<-done
		<-done
	})
	return s
}

// progresses waits until some more has arrived.
func (s *stream) progresses(t *testing.T) {
	t.Helper()
	const more = 1 << 20
	begin := s.received.Load()
	eventually(t, "the stream goes on", func() error {
		if err := s.err.Load(); err != nil {
			t.Fatalf("the connection broke: %v", *err)
		}
		if n := s.received.Load() - begin; n < more {
			return fmt.Errorf("%d bytes so far", n)
		}
		return nil
	})
}
