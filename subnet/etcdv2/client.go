package etcdv2

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	goetcd "github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet/etcd"
)

const (
	// dialTimeout is shorter than roundTripTimeout, so that time is left for the
	// next endpoint.
	dialTimeout = 2 * time.Second
	// maxErrorBody bounds what is read of an answer that is not etcd's.
	maxErrorBody = 4 << 10 // bytes
)

// newTransport returns a transport that, unlike go-etcd's, verifies certificates
// also without a client certificate, and detects a vanished peer (tcp(7)).
func newTransport(cfg *tls.Config) *http.Transport {
	d := &net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	// The handshake has as much time as the dial.
	secure := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * dialTimeout, KeepAliveConfig: d.KeepAliveConfig}, Config: cfg}
	return &http.Transport{DialContext: connecting(d.DialContext), DialTLSContext: connecting(secure.DialContext),
		IdleConnTimeout: 90 * time.Second}
}

// client returns a go-etcd client for a single exchange that ends with ctx.
//
// go-etcd has no contexts, retries by rules of its own and picks the next endpoint
// at random. It accepts only a Transport, but a Transport forwards requests to the
// RoundTripper that is registered for the scheme. So a roundTrip does all of that,
// and go-etcd only encodes requests and decodes answers.
func (s *Store) client(ctx context.Context) (*goetcd.Client, error) {
	rt := &roundTrip{Store: s, ctx: ctx}
	// The empty map disables HTTP/2, which would register for https as well.
	t := &http.Transport{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	t.RegisterProtocol("http", rt)
	t.RegisterProtocol("https", rt)
	c := goetcd.NewClient([]string{s.cfg.Endpoints[s.preferred.Load()]})
	c.SetTransport(t)
	// A member that is cut off from the others gives no STRONG answer.
	if err := c.SetConsistency(goetcd.STRONG_CONSISTENCY); err != nil {
		return nil, fmt.Errorf("make etcd client: %w", err)
	}
	if s.cfg.Username != "" {
		c.SetCredentials(s.cfg.Username, s.cfg.Password)
	}
	c.CheckRetry = never
	return c, nil
}

// never turns a failure that go-etcd would retry into an error.
func never(_ *goetcd.Cluster, _ int, resp http.Response, err error) error {
	if resp.StatusCode == 0 {
		return err
	}
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	answer := &goetcd.EtcdError{}
	switch {
	case readErr != nil:
		return fmt.Errorf("read answer: %w", readErr)
	case json.Unmarshal(body, answer) == nil && answer.ErrorCode != 0:
		return fmt.Errorf("%s: %w", resp.Status, answer)
	}
	return fmt.Errorf("%s: %q", resp.Status, body)
}

// roundTrip sends the request of one exchange.
type roundTrip struct {
	*Store
	ctx context.Context
}

// headersKey is the context key of a function that receives the index from an
// answer's headers. The headers of a wait come long before its answer.
type headersKey struct{}

// RoundTrip implements http.RoundTripper. It tries the endpoints in turn, the
// preferred one first. It repeats a read after any failure, and a write only if
// it was never sent.
func (rt *roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	var errs []error
	for i, u := range rt.order(req.URL) {
		out := req.Clone(rt.ctx)
		out.URL.Scheme, out.URL.Host, out.Host = u.Scheme, u.Host, u.Host
		if i > 0 && req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			out.Body = body
		}
		sent := rt.history.Mark()
		resp, err := rt.transport.RoundTrip(out)
		if err == nil {
			rt.prefer(u, resp.StatusCode < http.StatusInternalServerError)
			return rt.check(u, resp, sent)
		}
		rt.prefer(u, false)
		errs = append(errs, err)
		if rt.ctx.Err() != nil || req.Method != http.MethodGet && !unsent(err) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// check returns answers of etcd's v2 API and refuses others. The history observes
// their headers.
func (rt *roundTrip) check(u *url.URL, resp *http.Response, sent etcd.Mark) (*http.Response, error) {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusNotFound && kind != "application/json" {
		resp.Body.Close()
		return nil, ErrNoAPI
	}
	// A missing header is 0, which is unknown. etcd 0.4 has no cluster id.
	index, _ := strconv.ParseUint(resp.Header.Get("X-Etcd-Index"), 10, 63)
	term, _ := strconv.ParseUint(resp.Header.Get("X-Raft-Term"), 10, 64)
	rt.history.Observe(etcd.Answer{Cluster: resp.Header.Get("X-Etcd-Cluster-Id"), Member: u.Host, Term: term, Rev: int64(index)}, sent)
	if receive, ok := rt.ctx.Value(headersKey{}).(func(index uint64)); ok {
		receive(index)
	}
	return resp, nil
}

// order returns the endpoints to try for a request to u. A redirect to a member
// that is not configured (etcd 0.4: the leader) is followed.
func (rt *roundTrip) order(u *url.URL) []*url.URL {
	first := slices.Index(rt.cfg.Endpoints, u.Scheme+"://"+u.Host)
	if first < 0 {
		return []*url.URL{u}
	}
	n := len(rt.cfg.Endpoints)
	order := make([]*url.URL, 0, n)
	for i := range n {
		e, err := url.Parse(rt.cfg.Endpoints[(first+i)%n])
		if err == nil { // Validate parsed them
			order = append(order, e)
		}
	}
	return order
}

// prefer stores the endpoint to begin with next time: this one if it was good,
// otherwise the next.
func (rt *roundTrip) prefer(u *url.URL, good bool) {
	i := slices.Index(rt.cfg.Endpoints, u.Scheme+"://"+u.Host)
	if i >= 0 && !good {
		i = (i + 1) % len(rt.cfg.Endpoints)
	}
	if i >= 0 {
		rt.preferred.Store(int64(i))
	}
}

// unsent reports whether err means that there was no connection to send on.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
