package pinned

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestNamespaceRefused runs itself again without the capabilities for a map. The error has
// them.
func TestNamespaceRefused(t *testing.T) {
	const marker = "FLANNEL_TEST_NAMESPACE_REFUSED"
	if os.Getenv(marker) != "" {
		if err := PinNamespace(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "operation not permitted; flannel needs the capabilities") {
			t.Errorf("error %v", err)
		}
		return
	}
	netnstest.Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "setpriv", "--bounding-set=-all", self, "-test.run", "^TestNamespaceRefused$")
	c.Env = append(os.Environ(), marker+"=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
