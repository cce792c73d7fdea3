// Package control is how a command of this host changes what the daemon does:
// HTTP over a unix socket beside subnet.env, which only the daemon's own user,
// root, can open. The status server, which others may reach, changes nothing.
//
//	flannel rekey ──POST /rekey──► /run/flannel/subnet.sock ──► daemon
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/httpd"
)

const (
	// answerLimit is how long an action may take, and a question may wait.
	answerLimit = 15 * time.Second
	// maxAnswer is more than any answer has, in bytes.
	maxAnswer = 1 << 16
)

// Rekeyed says what a replacement of the backend's key has changed. Before and
// After are the data of our lease, as the other hosts read it.
type Rekeyed struct {
	Subnet netip.Prefix    `json:"subnet"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// Actions are what the daemon can be told to do. They are called from several
// goroutines at once; their errors go to who asked.
type Actions struct {
	Rekey func(context.Context) (Rekeyed, error)
}

// Path is the socket of the daemon that writes subnetFile: /run/flannel/subnet.env
// gives /run/flannel/subnet.sock. Two daemons differ in that file.
func Path(subnetFile string) string { return strings.TrimSuffix(subnetFile, ".env") + ".sock" }

// Server takes orders while Run runs.
type Server struct {
	path    string
	handler http.Handler
}

// New makes the server of a socket.
func New(path string, a Actions) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /rekey", func(w http.ResponseWriter, r *http.Request) {
		done, err := a.Rekey(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(done) // a client that has gone
	})
	return &Server{path, mux}
}

// Run serves until ctx ends, which gives nil; or it returns the error that kept
// it from serving. The socket is gone when it returns, and the context of an action
// that is still under way has ended.
func (s *Server) Run(ctx context.Context) error {
	ln, err := s.listen(ctx)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.path, err)
	}
	return s.serve(ctx, ln)
}

func (s *Server) serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{Handler: s.handler, ReadHeaderTimeout: answerLimit, WriteTimeout: answerLimit}
	if err := httpd.Serve(ctx, ln, srv); err != nil {
		return fmt.Errorf("serve on %s: %w", s.path, err)
	}
	return nil
}

// listen makes the socket, in place of one that a run which was killed has left.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// Linux makes the socket's file with the mode that the socket has before
		// it is bound (net/unix/af_unix.c): nobody gets in before a chmod.
		if failed := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); failed != nil {
			return failed
		}
		return err
	}}
	ln, err := lc.Listen(ctx, "unix", s.path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return ln, err
	}
	c, dialled := new(net.Dialer).DialContext(ctx, "unix", s.path)
	if dialled == nil {
		return nil, errors.Join(errors.New("another daemon serves it; give each its -subnet-file"), c.Close())
	}
	if info, err := os.Lstat(s.path); err != nil || info.Mode().Type() != fs.ModeSocket || !errors.Is(dialled, unix.ECONNREFUSED) {
		return nil, errors.Join(dialled, err)
	}
	if err := os.Remove(s.path); err != nil {
		return nil, err
	}
	return lc.Listen(ctx, "unix", s.path)
}

// Rekey has the daemon at a socket replace its key.
func Rekey(ctx context.Context, path string) (done Rekeyed, err error) {
	return done, post(ctx, path, "rekey", &done)
}

// post tells the daemon what to do, and decodes its answer.
func post(ctx context.Context, path, what string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://flannel/"+what, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("tell the daemon, which only root may: %w", err)
	case err != nil:
		return fmt.Errorf("tell the daemon, is it running with this -subnet-file? %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("read the daemon's answer: %w", err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the daemon refuses: %s", strings.TrimSpace(string(body)))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}
