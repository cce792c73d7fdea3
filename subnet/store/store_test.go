package store

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/etcdv2"
	"github.com/coreos/flannel/subnet/etcdv3"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

func TestMain(m *testing.M) {
	// glog flushes its files for as long as the process lives.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// write puts a configuration into one keyspace, by its own client.
func write(t *testing.T, api string, cfg etcd.ClientConfig) {
	t.Helper()
	s, err := Open(t.Context(), Config{ClientConfig: cfg, API: api, Publish: []byte("{}")})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if got := apiOf(t, s); got != api {
		t.Fatalf("Open, API %s, gave %s", api, got)
	}
}

func auto(cfg etcd.ClientConfig) Config { return Config{ClientConfig: cfg, API: APIAuto} }

// apiOf returns the API of an open store, and closes the store.
func apiOf(t *testing.T, s Store) string {
	t.Helper()
	if _, err := s.Config(t.Context()); err != nil {
		t.Errorf("Config of the chosen store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	switch s.Source.(type) {
	case *etcdv3.Store:
		if s.API == API3 {
			return API3
		}
	case *etcdv2.Store:
		if s.API == API2 {
			return API2
		}
	}
	t.Fatalf("store is a %T, said to be of API %q", s.Source, s.API)
	return ""
}

func TestAuto(t *testing.T) {
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	for name, test := range map[string]struct {
		holds []string
		want  string
	}{
		"v3 only": {[]string{API3}, API3},
		"v2 only": {[]string{API2}, API2},
		"both":    {[]string{API2, API3}, API3},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := srv.ClientConfig("/" + strings.ReplaceAll(name, " ", ""))
			for _, api := range test.holds {
				write(t, api, cfg)
			}
			r, err := Open(t.Context(), auto(cfg))
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			if api := apiOf(t, r); api != test.want {
				t.Errorf("Open chose %s, want %s", api, test.want)
			}
		})
	}
}

// TestAutoWaits: Open waits for a configuration and for a server.
func TestAutoWaits(t *testing.T) {
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	for _, api := range []string{API3, API2} {
		cfg := srv.ClientConfig("/wait" + api)
		p, err := newProbe(auto(cfg), cfg.Prefix)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.choose(t.Context())
		p.release(Store{})
		if !errors.Is(err, subnet.ErrNoConfig) || !strings.Contains(err.Error(), "etcdctl put /wait") {
			t.Errorf("choose with no configuration: %v", err)
		}
		chosen := make(chan string, 1)
		go func() {
			r, err := Open(t.Context(), auto(cfg))
			if err != nil {
				chosen <- err.Error()
				return
			}
			chosen <- apiOf(t, r)
		}()
		write(t, api, cfg)
		if got := <-chosen; got != api {
			t.Errorf("Open chose %s, want %s", got, api)
		}
	}

	srv.Stop()
	cfg := srv.ClientConfig("/wait3")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, auto(cfg)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), srv.URL()) {
		t.Errorf("Open with a stopped server: %v", err)
	}
	chosen := make(chan Store, 1)
	go func() {
		r, err := Open(t.Context(), auto(cfg))
		if err != nil {
			t.Errorf("Open: %v", err)
		}
		chosen <- r
	}()
	srv.Restart()
	if s := <-chosen; s.Source != nil && apiOf(t, s) != API3 {
		t.Error("Open chose the wrong API after the server came")
	}
}

// TestAutoPublish: a configuration is written only if there is none.
func TestAutoPublish(t *testing.T) {
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	write(t, API2, srv.ClientConfig("/two"))
	for prefix, want := range map[string]struct{ api, config string }{
		"/none": {API3, `{"Network":"10.9.0.0/16"}`},
		"/two":  {API2, "{}"},
	} {
		c := auto(srv.ClientConfig(prefix))
		c.Publish = []byte(`{"Network":"10.9.0.0/16"}`)
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		if config, err := s.Config(t.Context()); err != nil || string(config) != want.config {
			t.Errorf("%s: Config = %s, %v; want %s", prefix, config, err, want.config)
		}
		if api := apiOf(t, s); api != want.api {
			t.Errorf("%s: Open chose %s, want %s", prefix, api, want.api)
		}
	}

	c := auto(srv.ClientConfig("/old"))
	c.Endpoints, c.Publish = []string{oneGeneration(t, srv.URL(), "etcd 0.4.6")}, []byte("{}")
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if api := apiOf(t, s); api != API2 {
		t.Errorf("an old server: Open chose %s", api)
	}
}

// oneGeneration returns the URL of a server that supports HTTP/1 only, so that its
// v3 API is unreachable, and that reports the given version.
func oneGeneration(t *testing.T, behind, version string) string {
	t.Helper()
	u, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" && version != "" {
			_, _ = w.Write([]byte(version))
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

func TestAutoOldServer(t *testing.T) {
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	write(t, API2, srv.ClientConfig("/net"))
	for _, version := range []string{"etcd 0.4.6", `{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}`} {
		cfg := srv.ClientConfig("/net")
		cfg.Endpoints = []string{"http://" + etcdserver.FreeAddr(t), oneGeneration(t, srv.URL(), version)}
		r, err := Open(t.Context(), auto(cfg))
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		if api := apiOf(t, r); api != API2 {
			t.Errorf("Open at version %s chose %s", version, api)
		}
	}
}

// TestAutoUnreachableV3: an unreachable v3 API is no reason to use v2.
func TestAutoUnreachableV3(t *testing.T) {
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	write(t, API2, srv.ClientConfig("/net"))
	write(t, API3, srv.ClientConfig("/net"))
	cfg := srv.ClientConfig("/net")
	cfg.Endpoints = []string{oneGeneration(t, srv.URL(), "")}
	p, err := newProbe(auto(cfg), cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	defer p.release(Store{})
	if r, err := p.choose(t.Context()); err == nil || !strings.Contains(err.Error(), "which has the v3 API") {
		t.Errorf("choose = %T, %v", r, err)
	}
}

// TestAutoReasons: the error that Open waits on contains the reason.
func TestAutoReasons(t *testing.T) {
	tls := etcdserver.Start(t, etcdserver.Options{TLS: true})
	other := etcdserver.Start(t, etcdserver.Options{TLS: true})
	auth := etcdserver.Start(t, etcdserver.Options{V2: true, User: "flannel", Password: "secret", Prefix: "/net"})
	write(t, API2, auth.ClientConfig("/net"))
	for name, test := range map[string]struct {
		srv    *etcdserver.Server
		change func(*etcd.ClientConfig)
		want   string
	}{
		"wrong CA":       {tls, func(c *etcd.ClientConfig) { c.CAFile = other.CAFile }, "certificate signed by unknown authority"},
		"wrong password": {auth, func(c *etcd.ClientConfig) { c.Password = "wrong-password" }, "authentication failed"},
		"no password":    {auth, func(c *etcd.ClientConfig) { c.Username, c.Password = "", "" }, "user name is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := test.srv.ClientConfig("/net")
			test.change(&cfg)
			p, err := newProbe(auto(cfg), cfg.Prefix)
			if err != nil {
				t.Fatal(err)
			}
			defer p.release(Store{})
			if r, err := p.choose(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("choose = %T, %v; want %q", r, err, test.want)
			}
		})
	}
}

// TestWrongConfiguration: a wrong configuration is an error at once.
func TestWrongConfiguration(t *testing.T) {
	for name, cfg := range map[string]etcd.ClientConfig{
		"no endpoints":    {},
		"bad endpoint":    {Endpoints: []string{"http://x:2379/path"}},
		"unreadable CA":   {Endpoints: []string{"https://127.0.0.1:1"}, CAFile: filepath.Join(t.TempDir(), "none")},
		"TLS over http":   {Endpoints: []string{"http://127.0.0.1:1"}, CAFile: "ca"},
		"half a key pair": {Endpoints: []string{"https://127.0.0.1:1"}, CertFile: "cert"},
	} {
		for _, api := range []string{APIAuto, API2, API3} {
			if _, err := Open(t.Context(), Config{ClientConfig: cfg, API: api}); err == nil {
				t.Errorf("Open, API %s, with %s: no error", api, name)
			}
		}
	}
	if _, err := Open(t.Context(), Config{ClientConfig: etcd.ClientConfig{Endpoints: []string{"127.0.0.1:1"}}, API: "4"}); err == nil || !strings.Contains(err.Error(), "-etcd-api") {
		t.Errorf("Open, API 4: %v", err)
	}
}

func TestParseMajor(t *testing.T) {
	for body, want := range map[string]int{
		`{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}`: 3,
		`{"etcdserver":"2.1.0","etcdcluster":"2.1.0"}`:  2,
		"etcd 0.4.6": 0, "etcd 2.0.9\n": 2,
		"": -1, "{}": -1, "<html>": -1, `{"etcdserver":"x.y"}`: -1, "etcd 3": -1,
	} {
		got, err := parseMajor([]byte(body))
		if (err != nil) != (want < 0) || want >= 0 && got != want {
			t.Errorf("parseMajor(%q) = %d, %v; want %d", body, got, err, want)
		}
	}
}
