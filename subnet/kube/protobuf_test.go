package kube

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/coreos/flannel/subnet"
)

type marshaler interface{ Marshal() ([]byte, error) }

func marshal(t testing.TB, m marshaler) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// object encodes m as the API server does.
func object(t testing.TB, kind string, m marshaler) []byte {
	t.Helper()
	u := &runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: kind}, Raw: marshal(t, m), ContentType: protobufType}
	return append([]byte("k8s\x00"), marshal(t, u)...)
}

// frame encodes an event as the API server does.
func frame(t testing.TB, kind string, object []byte) []byte {
	t.Helper()
	b := marshal(t, &metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: object}})
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// fullNode has what flannel reads, and much that it does not.
func fullNode(name string) *corev1.Node {
	one := int64(1)
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid of " + name), ResourceVersion: "17", Generation: 3, DeletionGracePeriodSeconds: &one,
			Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d", "empty": "", "": "no name"}, Finalizers: []string{"f"}},
		Spec: corev1.NodeSpec{PodCIDR: "10.5.1.0/24", PodCIDRs: []string{"10.5.1.0/24", "fd00:5:0:1::/64"}, ProviderID: "p", Unschedulable: true,
			Taints: []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{Images: []corev1.ContainerImage{{Names: []string{"i"}, SizeBytes: 1 << 40}}},
	}
}

func wantNode(name string) node {
	var n node
	n.Metadata.Name, n.Metadata.UID, n.Metadata.ResourceVersion = name, "uid of "+name, "17"
	n.Metadata.Annotations = map[string]string{"c": "d", "empty": "", "": "no name"}
	n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.5.1.0/24", []string{"10.5.1.0/24", "fd00:5:0:1::/64"}
	return n
}

// Events and pages are decoded from the bytes that the types of Kubernetes write.
func TestProtobuf(t *testing.T) {
	refusal := &metav1.Status{Code: 410, Reason: "Expired", Message: "too old resource version"}
	stream := bytes.Join([][]byte{
		frame(t, "ADDED", object(t, "Node", fullNode("a"))),
		frame(t, "BOOKMARK", object(t, "Node", &corev1.Node{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "18"}})),
		frame(t, "ERROR", object(t, "Status", refusal)),
	}, nil)
	r := newEventReader(bytes.NewReader(stream))
	e, err := r.next()
	if diff := cmp.Diff(event{"ADDED", wantNode("a")}, e); diff != "" || err != nil {
		t.Errorf("first event: %v\n%s", err, diff)
	}
	if e, err := r.next(); e.Type != eventBookmark || e.Object.Metadata.ResourceVersion != "18" || err != nil {
		t.Errorf("second event: %+v, %v", e, err)
	}
	if _, err := r.next(); !errors.Is(err, subnet.ErrCompacted) {
		t.Errorf("third event: %v", err)
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}

	var p page
	list := &corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "19", Continue: "next"}, Items: []corev1.Node{*fullNode("a"), *fullNode("b")}}
	if err := p.decode(object(t, "NodeList", list)); err != nil {
		t.Fatal(err)
	}
	a, b := wantNode("a"), wantNode("b")
	if diff := cmp.Diff(page{"19", "next", []*node{&a, &b}}, p, cmp.AllowUnexported(page{})); diff != "" {
		t.Error(diff)
	}
}

// What is no protobuf, or is cut off, is an error that says so.
func TestNoProtobuf(t *testing.T) {
	whole := frame(t, "ADDED", object(t, "Node", fullNode("a")))
	for length := 1; length < len(whole); length++ {
		if _, err := newEventReader(bytes.NewReader(whole[:length])).next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: %v", length, len(whole), err)
		}
	}
	inner := object(t, "Node", fullNode("a"))
	for text, read := range map[string]func(text string) error{
		"<html>a login page</html>": func(s string) error { _, err := newEventReader(bytes.NewReader([]byte(s))).next(); return err },
		`{"kind":"NodeList"}`:       func(s string) error { return new(page).decode([]byte(s)) },
		`{"kind":"Status"}`:         func(s string) error { return new(apiError).decode([]byte(s)) },
		string(inner[:len(inner)/2]): func(s string) error {
			_, err := newEventReader(bytes.NewReader(frame(t, "ADDED", []byte(s)))).next()
			return err
		},
	} {
		if err := read(text); !errors.Is(err, errEncoding) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whatever bytes come, decoding ends, and a Node that the types of Kubernetes can decode
// has the same fields.
func FuzzNode(f *testing.F) {
	f.Add(marshal(f, fullNode("a")))
	f.Add([]byte{0x0a, 0x02, 0x0a, 0x00})
	f.Fuzz(func(t *testing.T, message []byte) {
		var theirs corev1.Node
		var ours node
		if ours.decode(message) != nil || theirs.Unmarshal(message) != nil {
			return
		}
		if ours.Metadata.Name != theirs.Name || ours.Metadata.ResourceVersion != theirs.ResourceVersion || !cmp.Equal(ours.Spec.PodCIDRs, theirs.Spec.PodCIDRs) ||
			!cmp.Equal(ours.Metadata.Annotations, theirs.Annotations) {
			t.Errorf("decoded %+v, want %+v", ours, theirs)
		}
	})
}

func BenchmarkEvent(b *testing.B) {
	n := fullNode("a")
	for range 50 {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{"registry.example.com/team/application@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "registry.example.com/team/application:v1"}})
	}
	one := frame(b, "MODIFIED", object(b, "Node", n))
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	from := bytes.NewReader(nil)
	r := newEventReader(from)
	for b.Loop() {
		from.Reset(one)
		r.from.Reset(from)
		if _, err := r.next(); err != nil {
			b.Fatal(err)
		}
	}
}
