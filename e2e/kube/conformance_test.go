package kube

import (
	"cmp"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/coreos/flannel/e2e/kube/controlplane"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/kube"
	"github.com/coreos/flannel/subnet/subnettest"
)

// The store keeps the contract of every store on a real API server.
func TestConformance(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	host := r.lab.Host("observer")
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(r.control.Kubeconfig(controlplane.FlannelToken)), 0o600); err != nil {
		t.Fatal(err)
	}
	names, err := kube.ParseAnnotations(kube.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	open := func(t *testing.T, c kube.Config) *kube.Store {
		c.Annotations, c.Dial = names, host.Dial
		k := kube.New(c)
		t.Cleanup(func() { k.Close() })
		return k
	}
	nodeOf := func(l subnet.Lease) string { return "node-" + l.Subnet.Addr().String() }
	subnettest.Source(t, func(t *testing.T) subnettest.SourceHarness {
		r.control.DeleteNodes()
		r.control.AddNode("self", "10.5.200.0/24")
		file := filepath.Join(t.TempDir(), "net-conf.json")
		requests := new(atomic.Int64)
		k := open(t, kube.Config{Kubeconfig: kubeconfig, NetConfig: file, Self: kube.Self{Node: "self"}, Observe: func(*http.Request) { requests.Add(1) }})
		put := func(l subnet.Lease) {
			annotations := map[string]any{prefix + "kube-subnet-manager": "true", prefix + "public-ip": l.Attrs.PublicIP.String(),
				prefix + "backend-type": l.Attrs.BackendType, prefix + "backend-data": cmp.Or(string(l.Attrs.BackendData), "null")}
			if _, ok := r.control.Node(nodeOf(l)); ok {
				r.control.Annotate(nodeOf(l), annotations)
			} else {
				r.control.AddAnnotated(nodeOf(l), annotations, l.Subnet.String())
			}
		}
		unusable := func(answers bool) func(*testing.T) subnet.Source {
			return func(t *testing.T) subnet.Source {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				if answers {
					t.Cleanup(func() { l.Close() })
				} else {
					l.Close()
				}
				k := kube.New(kube.Config{URL: "http://" + l.Addr().String(), NetConfig: file, Annotations: names, Self: kube.Self{Node: "self"}})
				if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
				return k
			}
		}
		return subnettest.SourceHarness{
			Source: k, Put: put,
			Corrupt: func(l subnet.Lease) {
				r.control.Annotate(nodeOf(l), map[string]any{prefix + "public-ip": "nonsense"})
			},
			Remove: func(l subnet.Lease) { r.control.Delete("/api/v1/nodes/" + nodeOf(l)) },
			SetConfig: func(text []byte) {
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
			},
			Forget: func() { // a new API server has no history
				r.control.Kill("kube-apiserver")
				r.control.StartAPIServer()
			},
			Requests:    func() int { return int(requests.Load()) },
			Unreachable: unusable(false), Silent: unusable(true),
		}
	})
}
