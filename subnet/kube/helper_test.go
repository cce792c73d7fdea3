package kube

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest/kubeapi"
)

func TestMain(m *testing.M) {
	// glog flushes its files for as long as the process lives.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

const (
	// self is the Node of the Store under test.
	self = "self"
	// testLimit is the time limit of Stores that exceed it.
	testLimit = 300 * time.Millisecond
	// netConf1 is a network configuration.
	netConf1 = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
)

var names = func() Annotations {
	a, err := ParseAnnotations(DefaultPrefix)
	if err != nil {
		panic(err) // unreachable: the default is valid
	}
	return a
}()

// open returns a Store of a host on s, and the number of its requests.
func open(t *testing.T, s *kubeapi.Server) (*Store, *atomic.Int64) {
	t.Helper()
	return openURL(t, s.URL())
}

func openURL(t *testing.T, url string) (*Store, *atomic.Int64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "net-conf.json")
	requests := new(atomic.Int64)
	k := New(Config{URL: url, NetConfig: file, Annotations: names, Self: Self{Node: self}, Observe: func(*http.Request) { requests.Add(1) }})
	t.Cleanup(func() { k.Close() })
	return k, requests
}

// holder returns the Holder of k for netConf1.
func holder(t *testing.T, k *Store) *Holder {
	t.Helper()
	return holderOf(t, k, netConf1)
}

// holderOf returns the Holder of k for a network configuration.
func holderOf(t *testing.T, k *Store, config string) *Holder {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return k.Holder(c)
}

// acquire returns the lease of a vxlan host, after h has published it.
func acquire(t *testing.T, h *Holder) subnet.Lease {
	t.Helper()
	l, err := h.Acquire(t.Context(), attrs(), subnet.Hints{}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// configure writes the network configuration of k.
func configure(t *testing.T, k *Store, text string) {
	t.Helper()
	if err := os.WriteFile(k.config.NetConfig, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// published returns the annotations of a lease, as its host writes them.
func published(t *testing.T, l subnet.Lease) map[string]string {
	t.Helper()
	set, err := names.encode(l)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for k, v := range set {
		if v != nil {
			all[k] = *v
		}
	}
	return all
}

// attrs are the attributes of a vxlan host.
func attrs() subnet.Attrs {
	return subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1"), BackendType: "vxlan",
		BackendData: json.RawMessage(`{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`)}
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 20 s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
