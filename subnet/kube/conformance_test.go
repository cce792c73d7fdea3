package kube

import (
	"net"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
	"github.com/coreos/flannel/subnet/subnettest/kubeapi"
)

func TestConformance(t *testing.T) {
	for name, configure := range map[string]func(*kubeapi.Server){
		"InitialEvents":   func(*kubeapi.Server) {},
		"NoInitialEvents": func(s *kubeapi.Server) { s.NoInitialEvents = true },
	} {
		t.Run(name, func(t *testing.T) {
			subnettest.Source(t, func(t *testing.T) subnettest.SourceHarness { return harness(t, configure) })
		})
	}
}

func harness(t *testing.T, configureServer func(*kubeapi.Server)) subnettest.SourceHarness {
	s := kubeapi.Start(t)
	configureServer(s)
	s.PutNode(self, nil, "10.5.200.0/24")
	k, requests := open(t, s)
	return subnettest.SourceHarness{
		Source: k,
		Put:    func(l subnet.Lease) { s.PutNode(nodeOf(l), published(t, l), l.Subnet.String()) },
		Corrupt: func(l subnet.Lease) {
			bad := published(t, l)
			bad[names.prefix+suffixPublicIP[inet.IPv4]] = "nonsense"
			s.PutNode(nodeOf(l), bad, l.Subnet.String())
		},
		Remove:    func(l subnet.Lease) { s.DeleteNode(nodeOf(l)) },
		SetConfig: func(text []byte) { configure(t, k, string(text)) },
		Forget:    s.Forget,
		Requests: func() int {
			if s.NoInitialEvents { // each list begins with a request that is refused
				n := 0
				for _, r := range s.Requests() {
					if !strings.Contains(r, "sendInitialEvents") {
						n++
					}
				}
				return n
			}
			return int(requests.Load())
		},
		Unreachable: func(t *testing.T) subnet.Source {
			l := listen(t)
			l.Close()
			k, _ := openURL(t, "http://"+l.Addr().String())
			configure(t, k, netConf1)
			return k
		},
		Silent: func(t *testing.T) subnet.Source {
			l := listen(t)
			t.Cleanup(func() { l.Close() })
			k, _ := openURL(t, "http://"+l.Addr().String())
			configure(t, k, netConf1)
			k.answer = testLimit
			return k
		},
		Limit: testLimit,
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// nodeOf returns the name of the Node of a test's lease.
func nodeOf(l subnet.Lease) string { return "node-" + l.Subnet.Addr().String() }
