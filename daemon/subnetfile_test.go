package daemon

import (
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A named pipe at -subnet-file is named at once: a start that opened it would wait
// for a writer.
func TestSubnetFileIsNoFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "subnet.env")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{fifo: "a named pipe", "/dev/null": "a device node", t.TempDir(): "a folder"} {
		_, err := ParseOptions([]string{"-subnet-file=" + path}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "-subnet-file "+path) || !strings.Contains(err.Error(), want) {
			t.Errorf("-subnet-file=%s: %v, want %q", path, err, want)
		}
	}
}
