package etcdv2

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// backdoor accesses the store like an operator, by plain HTTP requests.
type backdoor struct {
	t   *testing.T
	r   *Store
	rt  *http.Transport
	dir string
}

func newBackdoor(t *testing.T, r *Store) backdoor {
	tls, err := r.cfg.TLS()
	if err != nil {
		t.Fatal(err)
	}
	b := backdoor{t, r, newTransport(tls), r.cfg.LeaseDir()}
	t.Cleanup(b.rt.CloseIdleConnections)
	return b
}

func (b backdoor) do(method, key string, form url.Values, ok ...int) []byte {
	b.t.Helper()
	body, err := b.try(method, key, form, ok...)
	if err != nil {
		b.t.Fatalf("back door: %v", err)
	}
	return body
}

func (b backdoor) try(method, key string, form url.Values, ok ...int) ([]byte, error) {
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.r.cfg.Endpoints[0]+"/v2/keys"+key, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if b.r.cfg.Username != "" && !strings.HasPrefix(key, "/public/") {
		req.SetBasicAuth(b.r.cfg.Username, b.r.cfg.Password)
	}
	resp, err := b.rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	for _, code := range append(ok, http.StatusOK, http.StatusCreated) {
		if resp.StatusCode == code {
			return body, nil
		}
	}
	return nil, fmt.Errorf("%s %s: %s %s", method, key, resp.Status, body)
}

func (b backdoor) put(key string, value []byte, ttl time.Duration) { b.write(b.dir+key, value, ttl) }

func (b backdoor) write(key string, value []byte, ttl time.Duration) {
	b.t.Helper()
	form := url.Values{"value": {string(value)}}
	if ttl > 0 {
		form.Set("ttl", strconv.FormatUint(seconds(ttl), 10))
	}
	b.do(http.MethodPut, key, form)
}

func (b backdoor) get(key string) ([]byte, bool) {
	b.t.Helper()
	var resp struct {
		Node struct {
			Value string
			TTL   int
		}
	}
	body := b.do(http.MethodGet, b.dir+key+"?quorum=true", nil, http.StatusNotFound)
	if err := json.Unmarshal(body, &resp); err != nil {
		b.t.Fatalf("back door: %v", err)
	}
	if resp.Node.Value == "" {
		return nil, false
	}
	return []byte(resp.Node.Value), resp.Node.TTL > 0
}

func (b backdoor) delete(key string) {
	b.t.Helper()
	b.do(http.MethodDelete, b.dir+key, nil)
}

// forget makes more changes of other keys than the server remembers.
func (b backdoor) forget() {
	b.t.Helper()
	var wg sync.WaitGroup
	const writers = 20
	for w := range writers {
		wg.Go(func() {
			for range 1100 / writers {
				if _, err := b.try(http.MethodPut, fmt.Sprintf("/public/%d", w), url.Values{"value": {"x"}}); err != nil {
					b.t.Errorf("back door: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}
