package kube

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/coreos/flannel/subnet"
)

const (
	// maxPause bounds the pause that a busy API server asks for (Retry-After).
	maxPause = 30 * time.Second
	// maxAnswer bounds the answer to a request for one object.
	maxAnswer = 8 << 20

	mergePatch     = "application/merge-patch+json"
	strategicPatch = "application/strategic-merge-patch+json"
)

// client sends requests to the API server.
type client struct {
	http   *http.Client
	server *url.URL // scheme and host
	path   string   // of version v1
	// answer bounds the time until an answer begins, and pauses within it.
	answer time.Duration
}

// newClient reads the kubeconfig, or the token and CA file of the pod.
func newClient(c Config, answer time.Duration) (*client, error) {
	cfg, err := restConfig(c)
	if err != nil {
		return nil, err
	}
	cfg.UserAgent = "flannel"
	d := newDialer(answer)
	if c.Dial != nil {
		d.connect = c.Dial
	}
	cfg.Dial = d.dial
	if c.Observe != nil {
		cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return observed{rt, c.Observe} })
	}
	server, path, err := serverURL(cfg)
	if err != nil {
		return nil, err
	}
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client for API server %s: %w", server, err)
	}
	return &client{http: h, server: server, path: path, answer: answer}, nil
}

func restConfig(c Config) (*rest.Config, error) {
	if c.URL != "" || c.Kubeconfig != "" {
		cfg, err := clientcmd.BuildConfigFromFlags(c.URL, c.Kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("use -kube-api-url and -kubeconfig-file: %w", err)
		}
		return cfg, nil
	}
	cfg, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, fmt.Errorf("find the API server: %w; outside of a pod give -kubeconfig-file", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the service account of the pod: %w", err)
	}
	return cfg, nil
}

func serverURL(cfg *rest.Config) (*url.URL, string, error) {
	cfg.APIPath, cfg.GroupVersion = "/api", &schema.GroupVersion{Version: "v1"}
	server, path, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, "", fmt.Errorf("check URL of API server %q: %w", cfg.Host, err)
	}
	return server, path, nil
}

// Server returns the URL of the API server, for display. It is that of the pod's
// environment, or the file that names it, if the URL is not known yet.
func (c Config) Server() string {
	if c.URL == "" && c.Kubeconfig == "" {
		return "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	if cfg, err := restConfig(c); err == nil {
		if server, _, err := serverURL(cfg); err == nil {
			return server.Scheme + "://" + server.Host
		}
	}
	return c.Kubeconfig
}

// observed calls a function with each request.
type observed struct {
	http.RoundTripper
	observe func(*http.Request)
}

// RoundTrip implements http.RoundTripper.
func (o observed) RoundTrip(r *http.Request) (*http.Response, error) {
	o.observe(r)
	return o.RoundTripper.RoundTrip(r)
}

// WrappedRoundTripper lets utilnet find the transport.
func (o observed) WrappedRoundTripper() http.RoundTripper { return o.RoundTripper }

func (c *client) close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }

// request is one request to the API server. path is relative to /api/v1.
type request struct {
	method, path string
	query        url.Values
	contentType  string
	body         any // encoded as JSON; nil: none
	// many: the answer is of all Nodes, in protobuf. A busy API server lets such a
	// request wait.
	many bool
}

// manyFactor is how much longer than others a request for all Nodes may wait: 30 s.
const manyFactor = 6

// stream sends r and returns the body of the answer. A read of it fails after a
// pause of silence. The caller closes it.
func (c *client) stream(ctx context.Context, r request, silence time.Duration) (io.ReadCloser, error) {
	target := *c.server
	target.Path = c.path + "/" + r.path
	target.RawQuery = r.query.Encode()
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	limit := c.answer
	if r.many {
		limit *= manyFactor
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watchdog := time.AfterFunc(limit, func() { cancel(errSilent) })
	resp, err := c.send(ctx, r, target.String(), body)
	if err != nil {
		watchdog.Stop()
		if errors.Is(context.Cause(ctx), errSilent) {
			err = fmt.Errorf("%w within %v", errSilent, limit)
		}
		cancel(nil)
		return nil, fmt.Errorf("%s %s: %w", r.method, target.String(), err)
	}
	watchdog.Reset(silence)
	return &answer{resp.Body, ctx, cancel, watchdog, silence}, nil
}

// errSilent: the API server accepts connections and does not answer.
var errSilent = errors.New("the API server does not answer")

func (c *client) send(ctx context.Context, r request, target string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	accept := "application/json"
	if r.many {
		accept = protobufType
		if r.query.Has("watch") {
			accept += ";stream=watch"
		}
	}
	req.Header.Set("Accept", accept)
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// A *url.Error repeats method and URL, which the caller adds.
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	status := new(apiError)
	if err != nil || status.decode(text) != nil && json.Unmarshal(text, status) != nil || status.Code == 0 {
		status = &apiError{Code: resp.StatusCode, Message: http.StatusText(resp.StatusCode)}
	}
	pauseFor(ctx, resp.Header.Get("Retry-After"))
	return nil, status
}

// pauseFor waits for the seconds that a busy API server asks for, at most
// maxPause. A retry that comes earlier would be refused, too.
func pauseFor(ctx context.Context, seconds string) {
	n, err := strconv.Atoi(seconds)
	if err != nil || n <= 0 {
		return
	}
	select {
	case <-time.After(min(time.Duration(n)*time.Second, maxPause)):
	case <-ctx.Done():
	}
}

// call sends r and decodes the answer into to, unless that is nil.
func (c *client) call(ctx context.Context, r request, to any) error {
	body, err := c.stream(ctx, r, c.answer)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err == nil && to != nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		return fmt.Errorf("%s %s: read answer: %w", r.method, r.path, err)
	}
	return nil
}

// answer is a body whose reads fail after a pause.
type answer struct {
	body     io.ReadCloser
	ctx      context.Context
	cancel   context.CancelCauseFunc
	watchdog *time.Timer
	silence  time.Duration
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	a.watchdog.Reset(a.silence)
	n, err := a.body.Read(p)
	if err != nil && errors.Is(context.Cause(a.ctx), errSilent) {
		err = fmt.Errorf("%w for %v", errSilent, a.silence)
	}
	return n, err
}

// Close implements io.Closer.
func (a *answer) Close() error {
	a.watchdog.Stop()
	a.cancel(nil)
	return a.body.Close()
}

// apiError is a refusal of the API server (metav1.Status).
type apiError struct {
	Code            int
	Reason, Message string
}

// Error returns the message with a remedy where one is known.
func (e *apiError) Error() string {
	text := fmt.Sprintf("the API server answers %d: %s", e.Code, e.Message)
	switch e.Code {
	case http.StatusUnauthorized:
		text += "; the token or certificate is not valid for this cluster"
	case http.StatusForbidden:
		text += "; give the service account the ClusterRole flannel (nodes: get, list, watch; nodes/status: patch)"
	}
	return text
}

// Is reports whether e is one of the errors of every store.
func (e *apiError) Is(target error) bool {
	switch target {
	case subnet.ErrCompacted:
		// A version of the future is one of another history, as after a restore of etcd.
		return e.Code == http.StatusGone || e.Code == http.StatusGatewayTimeout && strings.HasPrefix(e.Message, "Too large resource version")
	case subnet.ErrConflict:
		return e.Code == http.StatusConflict
	}
	return false
}

// hasCode reports whether err is a refusal with one of codes.
func hasCode(err error, codes ...int) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && slices.Contains(codes, e.Code)
}

// isUntrusted reports whether the API server's certificate has an unknown issuer.
func isUntrusted(err error) bool {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return unknown
}
