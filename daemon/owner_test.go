package daemon

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Folders that other users can change are refused: files there say whose lease
// and whose key is ours.
func TestFoldersOfOthers(t *testing.T) {
	for _, flag := range []string{"-state-dir=", "-subnet-file="} {
		dir := filepath.Join(t.TempDir(), "open")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		value := dir
		if flag == "-subnet-file=" {
			value = filepath.Join(dir, "subnet.env")
		}
		if _, err := ParseOptions([]string{flag + value}, io.Discard); err != nil {
			t.Errorf("%s of mode 0700: %v", flag, err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		_, err := ParseOptions([]string{flag + value}, io.Discard)
		if err == nil || !strings.HasPrefix(err.Error(), strings.TrimSuffix(flag, "=")) || !strings.Contains(err.Error(), "chmod go-w "+dir) {
			t.Errorf("%s of mode 0777: %v", flag, err)
		}
	}
}
