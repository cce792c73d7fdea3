package faultproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// patience bounds every wait for what must happen.
	patience = 30 * time.Second
	// quiet is how long nothing must come for "nothing comes" to be believed:
	// a proxy that lets it through takes microseconds.
	quiet = 100 * time.Millisecond
)

// rig is a proxy before a server that sends back what it gets.
type rig struct {
	t     *testing.T
	proxy *Proxy
	addr  string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // until the client has had enough
			}()
		}
	}()
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, addr: first.Addr().String()}
	r.proxy = New(Config{
		Listen: func(ctx context.Context) (net.Listener, error) {
			if l := first; l != nil {
				first = nil
				return l, nil
			}
			var c net.ListenConfig
			return c.Listen(ctx, "tcp", r.addr)
		},
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", server.Addr().String())
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.proxy.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if n := r.proxy.Open(); n != 0 {
			t.Errorf("%d connections are open after Run", n)
		}
	})
	return r
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", r.addr, patience)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) send(c net.Conn, text string) {
	r.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) receive(c net.Conn, want string) {
	r.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		r.t.Fatalf("received %q, %v; want %q", buf, err, want)
	}
}

// silent checks that c is open and that nothing comes.
func (r *rig) silent(c net.Conn) {
	r.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(quiet)); err != nil {
		r.t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Fatalf("received %d bytes, %v; want silence", n, err)
	}
}

func TestForward(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	r.send(c, "hello")
	r.receive(c, "hello")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the end of the stream: %v, want EOF", err)
	}
}

// What is held comes when the fault is over, on the same connection.
func TestHold(t *testing.T) {
	for name, fault := range map[string]Fault{
		"up": {HoldUp: true}, "down": {HoldDown: true}, "both": {HoldUp: true, HoldDown: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			old := r.dial()
			r.send(old, "before")
			r.receive(old, "before")
			r.proxy.Set(fault)
			fresh := r.dial()
			r.send(old, "during")
			r.send(fresh, "fresh")
			r.silent(old)
			r.silent(fresh)
			r.proxy.Set(Fault{})
			r.receive(old, "during")
			r.receive(fresh, "fresh")
		})
	}
}

// A refused client gets a reset; a connection that was there goes on.
func TestRefuse(t *testing.T) {
	r := newRig(t)
	old := r.dial()
	r.send(old, "before")
	r.receive(old, "before")
	r.proxy.Set(Fault{Refuse: true})
	deadline := time.Now().Add(patience)
	for {
		c, err := net.DialTimeout("tcp", r.addr, patience)
		if errors.Is(err, unix.ECONNREFUSED) {
			break
		}
		if err == nil {
			c.Close() // before the listener was closed
		}
		if time.Now().After(deadline) {
			t.Fatalf("dial: %v, want a refusal", err)
		}
	}
	r.send(old, "during")
	r.receive(old, "during")
	r.proxy.Set(Fault{})
	for {
		c, err := net.DialTimeout("tcp", r.addr, patience)
		if err == nil {
			r.send(c, "after")
			r.receive(c, "after")
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("dial after the refusal: %v", err)
		}
	}
}

func TestDrop(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	r.send(c, "before")
	r.receive(c, "before")
	r.proxy.Drop()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	again := r.dial()
	r.send(again, "after")
	r.receive(again, "after")
}

// A half-open connection takes all and answers nothing, for ever; a new one works.
func TestHalfOpen(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	r.send(c, "before")
	r.receive(c, "before")
	r.proxy.HalfOpen()
	r.send(c, "during")
	r.silent(c)
	r.send(c, "later")
	r.silent(c)
	again := r.dial()
	r.send(again, "after")
	r.receive(again, "after")

	c.Close() // which is what ends it
	deadline := time.After(patience)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for r.proxy.Open() > 1 {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("%d connections are open, want 1", r.proxy.Open())
		}
	}
}

func TestDelay(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	const delay = 50 * time.Millisecond
	r.proxy.Set(Fault{Delay: delay})
	began := time.Now()
	r.send(c, "slow")
	r.receive(c, "slow")
	if took := time.Since(began); took < 2*delay { // each way; a slow machine takes longer
		t.Errorf("there and back took %v, want %v at least", took, 2*delay)
	}
}
