package status

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coreos/flannel/pkg/httpd"
)

const (
	// The limits suit small answers.
	headerLimit = 5 * time.Second
	answerLimit = 30 * time.Second
	idleLimit   = 2 * time.Minute
)

// Config configures a Server.
type Config struct {
	// Addr is the TCP address to listen on, HOST:PORT (-status-addr).
	Addr string
	// Version is the program's. Began is its start.
	Version string
	Began   time.Time
	Source  Source
	// Reconciles, if not nil, is one of the metrics.
	Reconciles *Reconciles
	// Pprof serves /debug/pprof/ too (-status-pprof).
	Pprof bool
}

// Server serves HTTP while Run runs.
type Server struct {
	flag, addr string
	handler    http.Handler
	names      []string // by which clients may ask; nil: by any
}

// New returns the server of all paths.
func New(c Config) *Server {
	return &Server{flag: "-status-addr", addr: c.Addr, handler: c.handler(), names: ownNames(c.Addr)}
}

// ownNames are the host names by which clients may ask: the system's, and that
// in -status-addr.
func ownNames(addr string) []string {
	names := make([]string, 0, 2)
	if host, _, err := net.SplitHostPort(addr); err == nil {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	return names
}

// NewHealthz returns a server of /healthz and /readyz alone, for -healthz-ip and
// -healthz-port, the probes of a pod. Other hosts may reach it.
func NewHealthz(addr string, source Source) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", source.healthz)
	mux.HandleFunc("GET /readyz", source.readyz)
	return &Server{flag: "-healthz-ip, -healthz-port", addr: addr, handler: mux}
}

// Run serves until ctx ends (nil) or serving fails. No connection is open when it
// returns.
func (s *Server) Run(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen on %s (%s): %w", s.addr, s.flag, err)
	}
	return s.serve(ctx, ln)
}

func (s *Server) serve(ctx context.Context, ln net.Listener) error {
	handler := s.handler
	if s.names != nil {
		handler = httpd.OwnHost(handler, s.names...)
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: headerLimit, WriteTimeout: answerLimit, IdleTimeout: idleLimit}
	if err := httpd.Serve(ctx, ln, srv); err != nil {
		return fmt.Errorf("serve on %s (%s): %w", s.addr, s.flag, err)
	}
	return nil
}
