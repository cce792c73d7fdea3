package main

import "testing"

func TestPart(t *testing.T) {
	for symbol, want := range map[string]string{
		"net/http.(*Transport).RoundTrip": standard,
		"runtime.mallocgc":                standard,
		"main.main":                       "flannel itself",
		"github.com/coreos/flannel/subnet/kube.(*Store).List.func1":        "flannel itself",
		"go.etcd.io/etcd/server/v3/etcdserver.(*EtcdServer).run":           "etcd: client and embedded server",
		"gopkg.in/natefinch/lumberjack%2ev2.(*Logger).Write":               other,
		"slices.SortFunc[go.shape.[]github.com/coreos/flannel/subnet.X]":   standard,
		"k8s.io/apimachinery/pkg/runtime.(*Scheme).New":                    "Kubernetes client",
		"vendor/golang.org/x/net/http2/hpack.(*Decoder).parseFieldLiteral": standard,
	} {
		if have := partOf(packageOf(symbol)); have != want {
			t.Errorf("%s is in %q, want %q", symbol, have, want)
		}
	}
}
