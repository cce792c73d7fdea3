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

	"github.com/coreos/go-etcd/etcd"
)

const (
	// dialLimit is shorter than roundTripLimit, so that there is time left for
	// the next endpoint.
	dialLimit = 2 * time.Second
	// maxErrorBody is how much is read of an answer that is not etcd's.
	maxErrorBody = 4 << 10 // bytes
)

// newTransport is what go-etcd's own is not: it verifies certificates, also
// without one of ours, and notices a peer that has vanished (tcp(7)).
func newTransport(cfg *tls.Config) *http.Transport {
	d := &net.Dialer{Timeout: dialLimit, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	return &http.Transport{DialContext: d.DialContext, TLSClientConfig: cfg, TLSHandshakeTimeout: dialLimit,
		IdleConnTimeout: 90 * time.Second}
}

// client is a go-etcd client for a single exchange that ends with ctx.
//
// go-etcd knows no contexts, retries as it sees fit, and picks the next endpoint
// at random. It takes a Transport only; a Transport, however, hands over to
// whoever has registered for the scheme. So all of that is done by a roundTrip,
// and go-etcd is left with what it is good at: requests and answers.
func (r *Registry) client(ctx context.Context) (*etcd.Client, error) {
	rt := &roundTrip{Registry: r, ctx: ctx}
	// The empty map turns HTTP/2 off, which would register for https as well.
	t := &http.Transport{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	t.RegisterProtocol("http", rt)
	t.RegisterProtocol("https", rt)
	c := etcd.NewClient([]string{r.cfg.Endpoints[r.preferred.Load()]})
	c.SetTransport(t)
	// No STRONG answer comes from a member that is cut off from the others.
	if err := c.SetConsistency(etcd.STRONG_CONSISTENCY); err != nil {
		return nil, fmt.Errorf("make etcd client: %w", err)
	}
	if r.cfg.Username != "" {
		c.SetCredentials(r.cfg.Username, r.cfg.Password)
	}
	c.CheckRetry = never
	return c, nil
}

// never turns what go-etcd would retry into an error.
func never(_ *etcd.Cluster, _ int, resp http.Response, err error) error {
	if resp.StatusCode == 0 {
		return err
	}
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	answer := &etcd.EtcdError{}
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
	*Registry
	ctx context.Context
}

// headersKey finds, in an exchange's context, the function that is told of the
// answer's headers, which on a wait come long before the answer.
type headersKey struct{}

// RoundTrip implements http.RoundTripper. It goes through the endpoints, the
// preferred one first, but only while it is sure that no endpoint has done what
// was asked for: a read may be asked again, a write only if it was never sent.
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
		resp, err := rt.transport.RoundTrip(out)
		if err == nil {
			rt.prefer(u, resp.StatusCode < http.StatusInternalServerError)
			return rt.check(resp)
		}
		rt.prefer(u, false)
		errs = append(errs, err)
		if rt.ctx.Err() != nil || req.Method != http.MethodGet && !unsent(err) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// check passes on what etcd's v2 API says, and nothing else.
func (rt *roundTrip) check(resp *http.Response) (*http.Response, error) {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusNotFound && kind != "application/json" {
		resp.Body.Close()
		return nil, ErrNoAPI
	}
	if tell, ok := rt.ctx.Value(headersKey{}).(func(index uint64)); ok {
		index, _ := strconv.ParseUint(resp.Header.Get("X-Etcd-Index"), 10, 64)
		tell(index)
	}
	return resp, nil
}

// order is the endpoints to try for a request to u. A member that redirects to
// one that we were not told of (etcd 0.4: the leader) is followed there.
func (rt *roundTrip) order(u *url.URL) []*url.URL {
	first := slices.Index(rt.cfg.Endpoints, u.Scheme+"://"+u.Host)
	if first < 0 {
		return []*url.URL{u}
	}
	n := len(rt.cfg.Endpoints)
	order := make([]*url.URL, 0, n)
	for i := range n {
		e, err := url.Parse(rt.cfg.Endpoints[(first+i)%n])
		if err == nil { // they were parsed before
			order = append(order, e)
		}
	}
	return order
}

// prefer remembers the endpoint to begin with next time: this, if it was good,
// or the one after.
func (rt *roundTrip) prefer(u *url.URL, good bool) {
	i := slices.Index(rt.cfg.Endpoints, u.Scheme+"://"+u.Host)
	if i >= 0 && !good {
		i = (i + 1) % len(rt.cfg.Endpoints)
	}
	if i >= 0 {
		rt.preferred.Store(int64(i))
	}
}

// unsent reports whether err says that there was no connection to send on.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
