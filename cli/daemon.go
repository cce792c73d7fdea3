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
	// answerLimit bounds one question to the daemon, which is on this host.
	answerLimit = 5 * time.Second
	// maxAnswer is more than the status of ten thousand peers, in bytes.
	maxAnswer = 16 << 20
)

// statusSource is the running daemon as its HTTP status server shows it.
type statusSource struct{ addr string }

func (s *statusSource) register(fs *flag.FlagSet) {
	fs.StringVar(&s.addr, "status-addr", "127.0.0.1:8286", "`address` of the daemon's HTTP status")
}

// get returns code and body of one of the daemon's pages.
func (s *statusSource) get(ctx context.Context, path string) (int, []byte, error) {
	if s.addr == "" {
		return 0, nil, errors.New("-status-addr is empty: there is nobody to ask")
	}
	if _, _, err := net.SplitHostPort(s.addr); err != nil {
		return 0, nil, fmt.Errorf("-status-addr %q is not HOST:PORT: %w", s.addr, err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the daemon at -status-addr %s: %w", s.addr, err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which nobody has typed
	}
	if err != nil {
		return 0, nil, fmt.Errorf("ask the daemon at -status-addr %s, is it running? %w", s.addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return resp.StatusCode, body, nil
}

// report is the daemon's status, and the JSON that it came as.
func (s *statusSource) report(ctx context.Context) (*status.Report, []byte, error) {
	code, body, err := s.get(ctx, "/api/v1/status")
	if err != nil {
		return nil, nil, err
	}
	if code != http.StatusOK {
		return nil, nil, fmt.Errorf("ask for the status at %s: HTTP code %d; is that a flannel?", s.addr, code)
	}
	r := new(status.Report)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, nil, fmt.Errorf("decode the status from %s; is that a flannel? %w", s.addr, err)
	}
	return r, body, nil
}
