// Package control carries requests from commands on this host to the daemon: HTTP
// over a unix socket beside subnet.env. Only the daemon's own user, root, can open
// the socket. The status server, which others may reach, accepts no requests that
// change anything.
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
	// requestLimit bounds one request with its action.
	requestLimit = 15 * time.Second
	// maxResponse is the largest response in bytes.
	maxResponse = 1 << 16
)

// Rekeyed is the result of a replacement of the backend's key. Before and After
// are the backend data of this host's lease, which the other hosts read.
type Rekeyed struct {
	Subnet netip.Prefix    `json:"subnet"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// RekeyFunc replaces the key. Serve calls it from several goroutines at once, and
// sends its error to the client.
type RekeyFunc func(context.Context) (Rekeyed, error)

// Path returns the socket of the daemon that writes subnetFile:
// /run/flannel/subnet.sock for /run/flannel/subnet.env. Each daemon of a host has
// its own subnet file.
func Path(subnetFile string) string { return strings.TrimSuffix(subnetFile, ".env") + ".sock" }

// Serve serves requests at the socket until ctx ends, and then returns nil. Other
// errors: it cannot listen or serve. When it returns, the socket is removed, and
// the contexts of running calls of rekey have ended.
func Serve(ctx context.Context, path string, rekey RekeyFunc) error {
	ln, err := listen(ctx, path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	return serve(ctx, ln, rekey)
}

func serve(ctx context.Context, ln net.Listener, rekey RekeyFunc) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /rekey", func(w http.ResponseWriter, r *http.Request) {
		done, err := rekey(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(done) // fails if the client has closed the connection
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: requestLimit, WriteTimeout: requestLimit}
	if err := httpd.Serve(ctx, ln, srv); err != nil {
		return fmt.Errorf("serve on %v: %w", ln.Addr(), err)
	}
	return nil
}

// listen makes the socket. It replaces the socket of a daemon that was killed.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// bind(2) gives the file the mode of the socket (net/unix/af_unix.c), so
		// there is no time at which others can open it.
		if failed := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); failed != nil {
			return failed
		}
		return err
	}}
	ln, err := lc.Listen(ctx, "unix", path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return ln, err
	}
	c, dialled := new(net.Dialer).DialContext(ctx, "unix", path)
	if dialled == nil {
		return nil, errors.Join(errors.New("another daemon serves it; use another -subnet-file"), c.Close())
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket || !errors.Is(dialled, unix.ECONNREFUSED) {
		return nil, errors.Join(dialled, err)
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return lc.Listen(ctx, "unix", path)
}

// Rekey requests the daemon at the socket to replace its key.
func Rekey(ctx context.Context, path string) (done Rekeyed, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://flannel/rekey", nil)
	if err != nil {
		return done, err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return done, fmt.Errorf("send request to the daemon, which needs root: %w", err)
	case err != nil:
		return done, fmt.Errorf("send request to the daemon, is the daemon running with this -subnet-file? %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	switch {
	case err != nil:
		return done, fmt.Errorf("read the daemon's response: %w", err)
	case resp.StatusCode != http.StatusOK:
		return done, fmt.Errorf("the daemon refuses: %s", strings.TrimSpace(string(body)))
	}
	if err := json.Unmarshal(body, &done); err != nil {
		return done, fmt.Errorf("read the daemon's response: %w", err)
	}
	return done, nil
}
