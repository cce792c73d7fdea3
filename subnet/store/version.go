package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// versionTimeout bounds the request for one endpoint's version.
	versionTimeout = 5 * time.Second
	// maxVersion bounds the answer, which is far shorter.
	maxVersion = 4 << 10 // bytes
)

// beforeV3 returns nil if all endpoints that answer are of an etcd without a v3
// API, and the reason otherwise.
func (p *probe) beforeV3(ctx context.Context) error {
	var unknown []error
	old := false
	for _, e := range p.cfg.Endpoints {
		major, err := p.majorVersion(ctx, e)
		switch {
		case err != nil:
			unknown = append(unknown, err)
		case major >= 3:
			return fmt.Errorf("%s is etcd %d, which has the v3 API", e, major)
		default:
			old = true
		}
	}
	if !old {
		return errors.Join(unknown...)
	}
	return nil
}

func (p *probe) majorVersion(ctx context.Context, endpoint string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/version", nil)
	if err != nil {
		return 0, fmt.Errorf("get etcd's version: %w", err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("get etcd's version: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxVersion))
	if err != nil {
		return 0, fmt.Errorf("get etcd's version from %s: %w", endpoint, err)
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("get etcd's version from %s: %s", endpoint, resp.Status)
	}
	return parseMajor(body)
}

// parseMajor parses `{"etcdserver":"3.4.23",…}`, and the form before etcd 2.1,
// `etcd 0.4.6`.
func parseMajor(body []byte) (int, error) {
	var v struct{ Etcdserver string }
	if err := json.Unmarshal(body, &v); err != nil {
		v.Etcdserver = strings.TrimPrefix(string(body), "etcd ")
	}
	major, _, ok := strings.Cut(v.Etcdserver, ".")
	n, err := strconv.Atoi(major)
	if err != nil || !ok {
		return 0, fmt.Errorf("read etcd's version: %q is not a version", body)
	}
	return n, nil
}
