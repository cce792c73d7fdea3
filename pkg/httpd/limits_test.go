package httpd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serveOK serves "ok" until the test ends.
func serveOK(t *testing.T) (addr string) {
	t.Helper()
	ln := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") })}
	go func() { ended <- Serve(ctx, ln, srv) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// ask sends a request and returns the answer's status.
func ask(t *testing.T, addr, request string) (net.Conn, int) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return c, resp.StatusCode
}

const get = "GET / HTTP/1.1\r\nHost: localhost\r\n"

// A client that holds connections makes the oldest that wait give way, be they new
// or idle. Others get answers.
func TestConnectionsAreBounded(t *testing.T) {
	addr := serveOK(t)
	first, code := ask(t, addr, get+"\r\n")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	var held []net.Conn
	for i := range 2 * maxConns {
		request := get + "\r\n"
		if i%2 == 0 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			held = append(held, c)
			continue
		}
		c, code := ask(t, addr, request)
		if code != http.StatusOK {
			t.Fatalf("connection %d: status %d", i, code)
		}
		held = append(held, c)
	}
	for name, c := range map[string]net.Conn{"the first": first, "the second": held[0]} {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		// What is left of the answer comes before the end.
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s connection is still open: %v", name, err)
		}
	}
	if _, code := ask(t, addr, get+"\r\n"); code != http.StatusOK {
		t.Errorf("one more: status %d", code)
	}
}

func TestHeadersAreBounded(t *testing.T) {
	addr := serveOK(t)
	if _, code := ask(t, addr, get+"X: "+strings.Repeat("x", 8000)+"\r\n\r\n"); code != http.StatusOK {
		t.Errorf("header of 8000 bytes: status %d", code)
	}
	if _, code := ask(t, addr, get+"X: "+strings.Repeat("x", maxHeader+4096)+"\r\n\r\n"); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("header above the limit: status %d", code)
	}
}

// A body that never comes holds no connection.
func TestBodyThatDoesNotCome(t *testing.T) {
	c, err := net.Dial("tcp", serveOK(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, get+"Content-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("the connection is still open: %v", err)
	}
}

func TestOwnHost(t *testing.T) {
	h := OwnHost(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") }), "node1", "Status.Example.com")
	for host, want := range map[string]int{
		"127.0.0.1:8286": 200, "127.0.0.1": 200, "[::1]:8286": 200, "[fd00::1]": 200, "192.0.2.1:80": 200,
		"localhost:8286": 200, "LOCALHOST.": 200, "node1": 200, "node1:8286": 200, "status.example.com:8286": 200, "": 200,
		"evil.example": 421, "evil.example:8286": 421, "node1.evil.example": 421, "localhost.evil.example": 421,
		"127.0.0.1.evil.example:8286": 421, "2130706433": 421, "a]": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: status %d, want %d", host, w.Code, want)
		}
	}
}
