package etcdv2

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// request makes a request whose connection c notes. The connection is in use until
// the returned function has run.
func request(t *testing.T, transport *http.Transport, url string, c *connections) (done func()) {
	t.Helper()
	req, err := http.NewRequestWithContext(c.trace(t.Context()), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("request: %v", err)
	}
	return func() {
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("read answer: %v", err)
		}
		resp.Body.Close()
	}
}

// TestConnectionReplaced: the end of a connection counts, by the server alone. A new
// one counts not, while another request uses the one before.
func TestConnectionReplaced(t *testing.T) {
	t.Parallel()
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 1<<20)) })
	closes := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Connection", "close")
		answer(w, req)
	})
	for name, serve := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			srv := serve(answer)
			defer srv.Close()
			transport := newTransport(srv.Client().Transport.(*http.Transport).TLSClientConfig)
			defer transport.CloseIdleConnections()

			var mine, others connections
			for range 2 {
				request(t, transport, srv.URL, &mine)()
				if mine.replaced() {
					t.Fatal("replaced, while nothing has happened")
				}
			}
			done := request(t, transport, srv.URL, &others) // takes the connection
			request(t, transport, srv.URL, &mine)()
			done()
			if mine.last == others.last || mine.replaced() {
				t.Errorf("replaced, while another request uses the connection before")
			}
			transport.CloseIdleConnections()
			request(t, transport, srv.URL, &mine)()
			if mine.replaced() {
				t.Error("replaced by the server, but our side closed the connection")
			}
			srv.CloseClientConnections()
			request(t, transport, srv.URL, &mine)()
			if !mine.replaced() {
				t.Error("not replaced, after the server has closed all connections")
			}
			request(t, transport, srv.URL, &mine)()
			if mine.replaced() {
				t.Error("replaced once more")
			}

			short := serve(closes)
			defer short.Close()
			var each connections
			for range 3 {
				request(t, transport, short.URL, &each)()
				if each.replaced() {
					t.Error("replaced, at a server that keeps no connection")
				}
			}
		})
	}
}
