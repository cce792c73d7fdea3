package bpf

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestProbeNamesCapabilities runs itself again without one of the capabilities that the
// path needs. With exactly those that the error names, Probe returns nil.
func TestProbeNamesCapabilities(t *testing.T) {
	const marker = "FLANNEL_TEST_CAPABILITIES"
	switch os.Getenv(marker) {
	case "lacking", "lacking at most":
		_, err := Probe()
		if err == nil && os.Getenv(marker) == "lacking at most" {
			return
		}
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			t.Fatalf("Probe = %v, want that it may not", err)
		}
		for _, want := range []string{"CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("Probe = %v, want %s in it", err, want)
			}
		}
		return
	case "enough":
		if _, err := Probe(); err != nil {
			t.Error(err)
		}
		return
	}
	netnstest.Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	withoutPerfmon := "lacking"
	if options, err := os.ReadFile("/proc/cmdline"); err != nil {
		t.Fatal(err)
	} else if slices.Contains(strings.Fields(string(options)), "mitigations=off") {
		withoutPerfmon = "lacking at most" // newer kernels do not ask for it then (bpf_bypass_spec_v1 in include/linux/bpf.h)
	}
	for set, as := range map[string]string{
		"-all,+net_admin,+bpf,+perfmon": "enough",
		"-all,+net_admin,+bpf":          withoutPerfmon,
		"-all,+net_admin,+perfmon":      "lacking",
		"-all,+bpf,+perfmon":            "lacking",
	} {
		c := exec.CommandContext(t.Context(), "setpriv", "--bounding-set="+set, self, "-test.run=^TestProbeNamesCapabilities$", "-test.v")
		c.Env = append(os.Environ(), marker+"="+as)
		if out, err := c.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: ")) {
			t.Errorf("with %s: %v\n%s", set, err, out)
		}
	}
}
