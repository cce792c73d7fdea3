package kubeapi

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const protobufType = "application/vnd.kubernetes.protobuf"

// acceptsProtobuf reports whether the client asks for protobuf.
func acceptsProtobuf(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Accept"), protobufType)
}

// protobuf encodes the object whose JSON is text.
func protobuf(kind string, text []byte) []byte {
	var o interface{ Marshal() ([]byte, error) } = new(corev1.Node)
	switch kind {
	case "Status":
		o = new(metav1.Status)
	case "NodeList":
		o = new(corev1.NodeList)
	}
	// The text is this server's own, and the types are those of its fields.
	_ = json.Unmarshal(text, o)
	raw, _ := o.Marshal()
	object := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: kind}, Raw: raw}
	envelope, _ := object.Marshal()
	return append([]byte("k8s\x00"), envelope...)
}

// eventOf encodes an event of a watch.
func eventOf(r *http.Request, c change) []byte {
	if !acceptsProtobuf(r) {
		return fmt.Appendf(nil, "{\"type\":%q,\"object\":%s}\n", c.kind, c.object)
	}
	kind := "Node"
	if c.kind == "ERROR" {
		kind = "Status"
	}
	e := metav1.WatchEvent{Type: c.kind, Object: runtime.RawExtension{Raw: protobuf(kind, c.object)}}
	frame, _ := e.Marshal() // it is made of bytes
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}
