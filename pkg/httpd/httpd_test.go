package httpd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
)

func TestServeCutsOffRunningRequests(t *testing.T) {
	ln := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	never := make(chan struct{})
	defer close(never)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done() // ours, since the client waits
		<-never
	})}
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, srv) }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("an answer with status %s of a handler that gives none", resp.Status)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v, want nil at the end of ctx", err)
	}
}

func TestServeError(t *testing.T) {
	ln := listen(t)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), ln, &http.Server{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed listener: %v, want %v", err, net.ErrClosed)
	}
}

func listen(t *testing.T) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}
