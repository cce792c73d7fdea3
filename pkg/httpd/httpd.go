// Package httpd runs an HTTP server until a context ends.
package httpd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// shutdownLimit is how long running requests may take after ctx has ended.
const shutdownLimit = time.Second

// Serve runs srv on ln until ctx ends (nil) or serving fails. The requests' context
// ends with ctx; a request that ignores it is cut off. When Serve returns, ln is
// closed and no connection is open. Nothing else may use srv.
func Serve(ctx context.Context, ln net.Listener, srv *http.Server) error {
	limit(srv)
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
