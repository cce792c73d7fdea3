package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coreos/flannel/pkg/status"
)

const (
	// requestLimit bounds one request to the daemon, which runs on this host.
	requestLimit = 5 * time.Second
	// maxResponse is the largest response in bytes; a status of ten thousand peers
	// is smaller.
	maxResponse = 16 << 20
)

// statusClient reads the daemon's HTTP status.
type statusClient struct{ addr string }

func newStatusClient(fs *flag.FlagSet) *statusClient {
	s := new(statusClient)
	fs.StringVar(&s.addr, "status-addr", "127.0.0.1:8286", "`address` of the daemon's HTTP status")
	return s
}

func (s *statusClient) get(ctx context.Context, path string) (int, []byte, error) {
	if s.addr == "" {
		return 0, nil, errors.New("-status-addr is empty, so the daemon cannot be reached")
	}
	if _, _, err := net.SplitHostPort(s.addr); err != nil {
		return 0, nil, fmt.Errorf("-status-addr %q is not HOST:PORT: %w", s.addr, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("request status at -status-addr %s: %w", s.addr, err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the URL, which is not on the command line
	}
	if err != nil {
		return 0, nil, fmt.Errorf("request status at -status-addr %s, is the daemon running? %w", s.addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return 0, nil, fmt.Errorf("read status from %s: %w", s.addr, err)
	}
	return resp.StatusCode, body, nil
}

func (s *statusClient) report(ctx context.Context) (*status.Report, []byte, error) {
	code, body, err := s.get(ctx, "/api/v1/status")
	if err != nil {
		return nil, nil, err
	}
	if code != http.StatusOK {
		return nil, nil, fmt.Errorf("request status at %s: HTTP code %d, not a flannel status endpoint", s.addr, code)
	}
	r := new(status.Report)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, nil, fmt.Errorf("decode status from %s, not a flannel status endpoint: %w", s.addr, err)
	}
	return r, body, nil
}
