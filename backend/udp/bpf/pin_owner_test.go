package bpf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/pinned"
)

// Any user may make a folder on a bpffs that has the default mode, 1777. No
// program is taken over from there.
func TestPinsOfAnotherUser(t *testing.T) {
	netnstest.Require(t)
	root := filepath.Join(newPinRoot(t), "flannel")
	dir := filepath.Join(root, "a")
	if err := pinned.Prepare(dir, removeGone); err != nil {
		t.Fatalf("folders of our own: %v", err)
	}
	for _, foreign := range []string{root, dir} {
		if err := os.Chown(foreign, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := pinned.Prepare(dir, removeGone); err == nil || !strings.Contains(err.Error(), foreign+" belongs to user 65534") {
			t.Errorf("%s is nobody's: %v", foreign, err)
		}
		if err := os.Chown(foreign, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
}
