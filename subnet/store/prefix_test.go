package store

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// writeAt puts a configuration at a v3 key with exactly this prefix.
func writeAt(t *testing.T, cfg etcd.ClientConfig, prefix, config string) {
	t.Helper()
	cfg.Prefix, cfg.Verbatim = prefix, true
	s, err := openAPI(cfg, API3)
	if err != nil {
		t.Fatal(err)
	}
	defer closeUnused(s)
	if written, err := s.PublishConfig(t.Context(), []byte(config)); err != nil || !written {
		t.Fatalf("write %s/config: %v, %v", prefix, written, err)
	}
}

// The v3 key is read as the operator wrote it, with each slash; then as other
// hosts may have written it. A store that was opened so is found again, and a
// host's keys lie beside the configuration.
func TestPrefixAsWritten(t *testing.T) {
	srv := etcdserver.Start(t, etcdserver.Options{V2: true})
	for i, test := range []struct {
		written string   // after the number of the case
		keys    []string // that have a configuration, before /config
		want    string
	}{
		{"/net", []string{"/net"}, "/net"},
		{"net", []string{"net"}, "net"},
		{"net", []string{"/net"}, "/net"},
		{"net", []string{"net", "/net"}, "net"},
		{"/net", []string{"net"}, "net"},
		{"/net", []string{"net", "/net"}, "/net"},
		{"/net/", []string{"/net"}, "/net"},
		{"/net/", []string{"/net/"}, "/net/"},
		{"/net/", []string{"/net/", "/net"}, "/net/"},
		{"/net//", []string{"/net"}, "/net"},
		{"//net", []string{"//net"}, "//net"},
		{"/net//a", []string{"/net//a"}, "/net//a"},
		{"/net//a", []string{"/net/a"}, "/net/a"},
	} {
		at := func(prefix string) string { return strings.Replace(prefix, "net", fmt.Sprint("net", i), 1) }
		for _, key := range test.keys {
			writeAt(t, srv.ClientConfig(""), at(key), key)
		}
		for _, api := range []string{APIAuto, API3} {
			c := Config{ClientConfig: srv.ClientConfig(at(test.written)), API: api}
			s, err := Open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Open(t.Context(), s.Opened)
			if err != nil {
				t.Fatal(err)
			}
			remembered, err := Open(t.Context(), c.Remembered(s.API, s.Opened.Prefix))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []Store{s, again, remembered} {
				if got, err := s.Source.Config(t.Context()); err != nil || string(got) != test.want || s.Opened.LeaseDir() != at(test.want)+"/subnets/" {
					t.Errorf("%+v, API %s: read %q, %v, leases at %s", test, api, got, err, s.Opened.LeaseDir())
				}
				closeUnused(s)
			}
		}
	}
}

// Without a configuration at any of the keys, one is written at the canonical one.
func TestPrefixToPublishAt(t *testing.T) {
	srv := etcdserver.Start(t, etcdserver.Options{})
	for _, api := range []string{APIAuto, API3} {
		c := Config{ClientConfig: srv.ClientConfig("net" + api + "//a/"), API: api, Publish: []byte("{}")}
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Opened.ConfigKey(); got != "/net"+api+"/a/config" {
			t.Errorf("wrote %s", got)
		}
		closeUnused(s)
	}
}

// Of the endpoints of two clusters those are used whose cluster has the
// configuration; the others are named, with the remedy.
func TestEndpointsOfTwoClusters(t *testing.T) {
	empty := etcdserver.Start(t, etcdserver.Options{V2: true, Args: []string{"--initial-cluster-token=one"}})
	full := etcdserver.Start(t, etcdserver.Options{V2: true, Args: []string{"--initial-cluster-token=two"}})
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	write(t, API3, full.ClientConfig("/three"))
	write(t, API2, full.ClientConfig("/two"))
	for _, test := range []struct {
		prefix, api string
		endpoints   []string
		kept        []string
		warns       bool
	}{
		{"/three", APIAuto, []string{empty.URL(), full.URL()}, []string{full.URL()}, true},
		{"three", API3, []string{empty.URL(), full.URL()}, []string{full.URL()}, true},
		{"/two", APIAuto, []string{empty.URL(), full.URL()}, []string{full.URL()}, true},
		{"/two", API2, []string{full.URL(), empty.URL()}, []string{full.URL()}, true},
		{"/three", APIAuto, []string{full.URL(), "http://127.0.0.1:1"}, []string{full.URL(), "http://127.0.0.1:1"}, false},
		{"/three", APIAuto, []string{other.URL, full.URL()}, []string{other.URL, full.URL()}, false},
	} {
		cfg := full.ClientConfig(test.prefix)
		cfg.Endpoints = test.endpoints
		s, err := Open(t.Context(), Config{ClientConfig: cfg, API: test.api})
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(s.Opened.Endpoints) != fmt.Sprint(test.kept) || (s.Warning != "") != test.warns {
			t.Errorf("%+v: uses %v, warning %q", test, s.Opened.Endpoints, s.Warning)
		}
		if test.warns && (!strings.Contains(s.Warning, "leave out "+empty.URL()) || !strings.Contains(s.Warning, "-etcd-endpoints")) {
			t.Errorf("%+v: warning %q", test, s.Warning)
		}
		for range 5 { // the client takes the endpoints by turns
			if _, err := s.Source.Config(t.Context()); err != nil {
				t.Errorf("%+v: %v", test, err)
			}
		}
		closeUnused(s)
	}
}

// If both clusters have a configuration, or neither, hosts agree on one, whatever
// the order of their endpoints.
func TestHostsAgreeOnACluster(t *testing.T) {
	one := etcdserver.Start(t, etcdserver.Options{Args: []string{"--initial-cluster-token=one"}})
	two := etcdserver.Start(t, etcdserver.Options{Args: []string{"--initial-cluster-token=two"}})
	write(t, API3, one.ClientConfig("/both"))
	write(t, API3, two.ClientConfig("/both"))
	for _, prefix := range []string{"/both", "/neither"} {
		var kept []string
		for _, order := range [][]string{{one.URL(), two.URL()}, {two.URL(), one.URL()}} {
			cfg := one.ClientConfig(prefix)
			cfg.Endpoints = order
			s, err := Open(t.Context(), Config{ClientConfig: cfg, API: API3})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(s.Warning, "its id is the lowest") {
				t.Errorf("%s: warning %q", prefix, s.Warning)
			}
			kept = append(kept, strings.Join(s.Opened.Endpoints, ","))
			closeUnused(s)
		}
		if kept[0] != kept[1] {
			t.Errorf("%s: one host uses %s, another %s", prefix, kept[0], kept[1])
		}
	}
}

// An endpoint that is no etcd, or has another API, is named.
func TestEndpointsThatAreSomethingElse(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }))
	defer page.Close()
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"etcdserver":"2.3.8"}`) }))
	defer old.Close()
	for url, words := range map[string]string{other.URL: "no etcd; look at -etcd-endpoints", page.URL: "no etcd; look at -etcd-endpoints", old.URL: "is etcd 2, which has no v3 API"} {
		cfg := etcd.ClientConfig{Endpoints: []string{url}, Prefix: "/net"}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		s, err := openAPI(cfg, API3)
		if err != nil {
			t.Fatal(err)
		}
		_, failed := s.Source.Config(ctx)
		if err := describeEndpoints(ctx, cfg, failed); !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), url) {
			t.Errorf("%v, want %q", err, words)
		}
		closeUnused(s)
		if url != old.URL {
			p, err := newProbe(auto(cfg), cfg.Prefix)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.choose(ctx); err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("auto: %v, want %q", err, words)
			}
			p.release(Store{})
		}
		cancel()
	}
}
