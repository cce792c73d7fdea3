package controlplane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Node is the part of a Node that tests read.
type Node struct {
	Metadata struct {
		Name            string            `json:"name"`
		UID             string            `json:"uid"`
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		PodCIDRs []string `json:"podCIDRs"`
		Taints   []struct {
			Key    string `json:"key"`
			Effect string `json:"effect"`
		} `json:"taints"`
	} `json:"spec"`
	Status struct {
		Conditions []Condition `json:"conditions"`
	} `json:"status"`
}

// Condition is a condition of a Node.
type Condition struct {
	Type, Status, Reason, Message string
}

// grant gives the user of FlannelToken the ClusterRole flannel.
func (c *ControlPlane) grant() {
	c.t.Helper()
	const rbac = "/apis/rbac.authorization.k8s.io/v1/"
	c.Create(rbac+"clusterroles", object{"metadata": object{"name": "flannel"}, "rules": []object{
		{"apiGroups": []string{""}, "resources": []string{"pods"}, "verbs": []string{"get"}},
		{"apiGroups": []string{""}, "resources": []string{"nodes"}, "verbs": []string{"get", "list", "watch"}},
		{"apiGroups": []string{""}, "resources": []string{"nodes/status"}, "verbs": []string{"patch"}},
		{"apiGroups": []string{""}, "resources": []string{"events"}, "verbs": []string{"create"}},
	}})
	c.Create(rbac+"clusterrolebindings", object{"metadata": object{"name": "flannel"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel"},
		"subjects": []object{{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "flannel"}}})
}

type object = map[string]any

// AddNode creates a Node, as a kubelet does, with podCIDRs or none.
func (c *ControlPlane) AddNode(name string, podCIDRs ...string) {
	c.t.Helper()
	c.AddAnnotated(name, nil, podCIDRs...)
}

// AddAnnotated creates a Node with annotations.
func (c *ControlPlane) AddAnnotated(name string, annotations map[string]any, podCIDRs ...string) {
	c.t.Helper()
	n := object{"metadata": object{"name": name, "annotations": annotations}, "spec": object{}}
	if len(podCIDRs) > 0 {
		n["spec"] = object{"podCIDR": podCIDRs[0], "podCIDRs": podCIDRs}
	}
	c.Create("/api/v1/nodes", n)
}

// Create creates an object.
func (c *ControlPlane) Create(path string, o any) {
	c.t.Helper()
	c.must(http.MethodPost, path, "application/json", o)
}

// Delete deletes an object.
func (c *ControlPlane) Delete(path string) {
	c.t.Helper()
	c.must(http.MethodDelete, path, "", nil)
}

// Patch applies a JSON merge patch.
func (c *ControlPlane) Patch(path string, patch any) {
	c.t.Helper()
	c.must(http.MethodPatch, path, "application/merge-patch+json", patch)
}

// Annotate sets annotations of a Node; nil removes one.
func (c *ControlPlane) Annotate(node string, annotations map[string]any) {
	c.t.Helper()
	c.Patch("/api/v1/nodes/"+node, object{"metadata": object{"annotations": annotations}})
}

// Node reads a Node. ok is false if there is none.
func (c *ControlPlane) Node(name string) (n Node, ok bool) {
	c.t.Helper()
	code, text, err := c.request(http.MethodGet, "/api/v1/nodes/"+name, "", nil)
	if err == nil && code == http.StatusNotFound {
		return n, false
	}
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("the API server answers %d: %s", code, text)
	}
	if err == nil {
		err = json.Unmarshal(text, &n)
	}
	if err != nil {
		c.t.Fatalf("read node %s: %v", name, err)
	}
	return n, true
}

// Events returns the messages of the Events of a Node.
func (c *ControlPlane) Events(node string) (messages []string) {
	c.t.Helper()
	var list struct {
		Items []struct{ Reason, Message string }
	}
	text := c.must(http.MethodGet, "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name="+node, "", nil)
	if err := json.Unmarshal(text, &list); err != nil {
		c.t.Fatal(err)
	}
	for _, e := range list.Items {
		messages = append(messages, e.Reason+": "+e.Message)
	}
	return messages
}

func (c *ControlPlane) must(method, path, contentType string, body any) []byte {
	c.t.Helper()
	code, text, err := c.request(method, path, contentType, body)
	if err != nil || code/100 != 2 {
		c.t.Fatalf("%s %s: %d %s, %v", method, path, code, text, err)
	}
	return text
}

func (c *ControlPlane) request(method, path, contentType string, body any) (int, []byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.URL()+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", contentType)
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// DeleteNodes deletes all Nodes.
func (c *ControlPlane) DeleteNodes() {
	c.t.Helper()
	c.Delete("/api/v1/nodes")
}
