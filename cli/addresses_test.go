package cli

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/cni/reservation"
	"github.com/coreos/flannel/pkg/netnstest"
)

// An address of a pod is used, one that nobody has is new for a while and leaked
// then, and -free frees the leaked ones alone.
func TestAddresses(t *testing.T) {
	netnstest.Require(t)
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for addr, since := range map[string]time.Time{"10.99.98.2": old, "10.99.98.3": old, "10.99.98.4": time.Now()} {
		path := filepath.Join(dir, "cbr0", addr)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("c"+addr+"\r\neth0"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, since, since); err != nil {
			t.Fatal(err)
		}
	}
	netnstest.New(t).Namespace("pod").AddAddr("lo", netip.MustParsePrefix("10.99.98.2/32"))
	run := func(args ...string) (code int, out string) {
		var stdout, stderr bytes.Buffer
		code = Run(t.Context(), &Program{Stdout: &stdout, Stderr: &stderr}, append([]string{"addresses", "-dir=" + dir}, args...))
		return code, stdout.String() + stderr.String()
	}
	if err := reservation.CheckHost(); err != nil { // the test runs in a container
		if code, out := run("-free"); code != exitFailed || !strings.Contains(out, "run it on the host") {
			t.Errorf("in a container: %d\n%s", code, out)
		}
		return
	}
	for _, c := range []struct {
		args []string
		want [3]string // states, by address
	}{
		{nil, [3]string{addressUsed, addressLeaked, addressNew}},
		{[]string{"-free"}, [3]string{addressUsed, addressFreed, addressNew}},
		{nil, [3]string{addressUsed, "", addressNew}},
		{[]string{"-min-age=0s"}, [3]string{addressUsed, "", addressLeaked}},
		{[]string{"-network=none"}, [3]string{}},
	} {
		code, out := run(c.args...)
		if code != exitOK {
			t.Fatalf("%q: %d\n%s", c.args, code, out)
		}
		for i, want := range c.want {
			addr, got := "10.99.98."+string(rune('2'+i)), ""
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); f[1] == addr {
					got = f[2]
				}
			}
			if got != want {
				t.Errorf("%q: %s is %q, want %q\n%s", c.args, addr, got, want, out)
			}
		}
	}
	if code, out := run("-json"); code != exitOK || !strings.Contains(out, `"state": "used"`) {
		t.Errorf("-json: %d\n%s", code, out)
	}
}

func TestArguments(t *testing.T) {
	for program, want := range map[string]string{
		"/bin/cp": "install-conf -f a", "/opt/bin/install-conf": "install-conf -f a", "/opt/bin/mk-docker-opts.sh": "docker-opts -f a",
		"/opt/bin/flanneld": "-f a", "flannel": "-f a",
	} {
		if got := strings.Join(Arguments(program, []string{"-f", "a"}), " "); got != want {
			t.Errorf("%s runs %q, want %q", program, got, want)
		}
	}
}
