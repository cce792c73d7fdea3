package controlplane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Kubectl runs kubectl as the administrator and returns what it prints.
func (c *ControlPlane) Kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.TryKubectl(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// TryKubectl is Kubectl for a command that may fail.
func (c *ControlPlane) TryKubectl(args ...string) (string, error) {
	cmd := c.host.Command(c.t.Context(), c.Program("kubectl"), append([]string{"--kubeconfig=" + c.path("admin.conf")}, args...)...)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %q: %w\n%s", args, err, &errors)
	}
	return string(out), err
}

// PatchAs applies a strategic merge patch with the rights of a token. It returns the
// API server's status code and answer.
func (c *ControlPlane) PatchAs(token, path string, patch any) (int, string, error) {
	text, err := json.Marshal(patch)
	if err != nil {
		return 0, "", err
	}
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPatch, c.URL()+path, bytes.NewReader(text))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}
