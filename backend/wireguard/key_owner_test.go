package wireguard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A key that another user put there is known to that user.
func TestKeyOfAnotherUser(t *testing.T) {
	netnstest.Require(t) // to give the file away
	dir := t.TempDir()
	if _, err := makeKey(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, keyFile)
	if _, err := loadKey(dir); err != nil {
		t.Errorf("our own key: %v", err)
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKey(dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "user 65534") {
		t.Errorf("nobody's key: %v", err)
	}
}
