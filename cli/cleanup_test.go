package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/offloadrepair"
)

// A note of -offload-repair that cannot be read keeps nothing else from being removed.
func TestCleanupWithDamagedNote(t *testing.T) {
	h := newFirewallHost(t)
	h.run("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472")
	h.run("ip", "address", "add", "10.5.1.0/32", "dev", "flannel.1")
	dir := t.TempDir()
	if err := os.WriteFile(offloadrepair.NotePath(dir), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := exitOK
	err := h.Do(func() error {
		code = Run(t.Context(), &Program{Stdout: &stdout, Stderr: &stderr}, []string{"cleanup", "-network=10.5.0.0/16", "-status-addr=", "-state-dir=" + dir})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if code != exitFailed || !strings.Contains(stdout.String(), "removed device flannel.1") || !strings.Contains(stderr.String(), offloadrepair.NotePath(dir)) {
		t.Errorf("code %d\n%s%s", code, &stdout, &stderr)
	}
	if _, err := h.Netlink().LinkByName("flannel.1"); err == nil {
		t.Error("the device is left")
	}
}
