package kube

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coreos/flannel/e2e/kube/controlplane"
)

// The API server accepts the manifests, and knows each field of them. With both, the
// pod of flannel on one node changes that Node, and no other.
func TestManifests(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	for _, name := range []string{"kube-flannel.yml", "own-node-only.yml"} {
		r.control.Kubectl("apply", "--validate=strict", "--filename=../../contrib/kubernetes/"+name)
	}
	for _, name := range []string{"n1", "n2"} {
		r.control.AddNode(name)
	}
	r.control.Create("/api/v1/namespaces/kube-flannel/pods", map[string]any{"metadata": map[string]any{"name": "p1"},
		"spec": map[string]any{"nodeName": "n1", "serviceAccountName": "flannel", "containers": []any{map[string]any{"name": "c", "image": "none"}}}})
	token := strings.TrimSpace(r.control.Kubectl("create", "token", "flannel", "--namespace=kube-flannel", "--bound-object-kind=Pod", "--bound-object-name=p1"))
	unbound := strings.TrimSpace(r.control.Kubectl("create", "token", "flannel", "--namespace=kube-flannel"))

	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]any{prefix + "test": "1"}}}
	for _, c := range []struct {
		what, token, node string
		want              int
		text              string
	}{
		{"another Node", token, "n2", http.StatusUnprocessableEntity, "may change its own node only"},
		{"a Node, without a pod", unbound, "n1", http.StatusUnprocessableEntity, "may change its own node only"},
		{"the own Node", token, "n1", http.StatusOK, prefix + "test"},
	} {
		r.eventually("the API server judges a change of "+c.what, func() error {
			code, text, err := r.control.PatchAs(c.token, "/api/v1/nodes/"+c.node+"/status", patch)
			if err == nil && (code != c.want || !strings.Contains(text, c.text)) {
				err = fmt.Errorf("it answers %d: %s", code, text)
			}
			return err
		})
	}
}
