package status

import (
	"context"
	"net"
	"net/http"
	"os"
	"testing"
)

// A name that leads to this host by a trick gets no status. /healthz alone, which
// load balancers ask by their own names, is open.
func TestHostHeader(t *testing.T) {
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	c := config(working())
	c.Addr = "status.example.com:8286"
	for _, s := range []struct {
		server *Server
		page   string
		want   map[string]int
	}{
		{New(c), "/api/v1/status", map[string]int{"evil.example": 421, own: 200, "127.0.0.1": 200, "status.example.com": 200, "localhost:8286": 200}},
		{New(c), "/metrics", map[string]int{"evil.example:8286": 421}},
		{NewHealthz(":0", c.Source), "/healthz", map[string]int{"balancer.example": 200}},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.server.serve(ctx, ln) }()
		for host, want := range s.want {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+s.page, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s for %q: status %d, want %d", s.page, host, resp.StatusCode, want)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
