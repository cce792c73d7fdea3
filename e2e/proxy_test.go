package e2e

import (
	"context"
	"os"
	"testing"
)

// A proxy for the web, which other programs of the host need, does not catch the
// way to etcd.
func TestProxyVariables(t *testing.T) {
	c := newCluster(t, "3")
	n := c.node("a", dataPathFlag+"offload")
	cmd := n.Command(context.Background(), programs.flannel, n.args...)
	cmd.Env = append(os.Environ(), "HTTPS_PROXY=http://192.168.77.1:9", "HTTP_PROXY=http://192.168.77.1:9", "https_proxy=http://192.168.77.1:9")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	n.commandSays(0, "", "wait", "-timeout="+patience.String())
}
