// Package httpd runs an HTTP server for as long as a context lives.
package httpd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// shutdownLimit is how long requests under way may take when ctx ends.
const shutdownLimit = time.Second

// Serve has srv answer on ln until ctx ends, which gives nil; or it returns the
// error that ended it before. Requests have a context that ends with ctx; those
// that go on regardless are cut off. ln is closed and no connection is left when
// it returns. srv is Serve's alone.
func Serve(ctx context.Context, ln net.Listener, srv *http.Server) error {
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	err := srv.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-served
	return err
}
