package status

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coreos/flannel/pkg/httpd"
)

const (
	// Our answers are small, and no client needs longer to ask or to listen.
	headerLimit = 5 * time.Second
	answerLimit = 30 * time.Second
	idleLimit   = 2 * time.Minute
)

// Config is what a status server is made from.
type Config struct {
	// Addr is the TCP address to listen on, HOST:PORT (-status-addr).
	Addr string
	// Version is the program's; Began is when it started.
	Version string
	Began   time.Time
	Source  Source
	// Reconciles, if not nil, is among the metrics.
	Reconciles *Reconciles
	// Pprof serves /debug/pprof/ too (-status-pprof).
	Pprof bool
}

// Server answers HTTP requests while Run runs.
type Server struct {
	flag, addr string
	handler    http.Handler
}

// New makes the server of all pages.
func New(c Config) *Server {
	return &Server{flag: "-status-addr", addr: c.Addr, handler: c.handler()}
}

// NewHealthz makes a server of /healthz alone, for -healthz-ip and
// -healthz-port, which other hosts may reach.
func NewHealthz(addr string, source Source) *Server {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", healthz(source))
	return &Server{flag: "-healthz-ip, -healthz-port", addr: addr, handler: mux}
}

// Run serves until ctx ends, which gives nil; or it returns the error that kept
// it from serving. No connection is left when it returns.
func (s *Server) Run(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen on %s (%s): %w", s.addr, s.flag, err)
	}
	return s.serve(ctx, ln)
}

func (s *Server) serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{Handler: s.handler, ReadHeaderTimeout: headerLimit, WriteTimeout: answerLimit, IdleTimeout: idleLimit}
	if err := httpd.Serve(ctx, ln, srv); err != nil {
		return fmt.Errorf("serve on %s (%s): %w", s.addr, s.flag, err)
	}
	return nil
}
