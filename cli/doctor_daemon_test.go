package cli

import (
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/status"
)

// The daemon may have fewer rights than doctor. Its own reason against the kernel data
// path is the finding.
func TestDoctorReportsTheDaemonsPath(t *testing.T) {
	netnstest.Require(t)
	const reason = "best that this machine has; not kernel: may not"
	for _, test := range []struct {
		backend       *status.Backend
		verdict, want string
	}{
		{nil, verdictOK, "the kernel loads its programs"},
		{&status.Backend{Type: "udp", DataPath: "kernel"}, verdictOK, "the kernel loads its programs"},
		{&status.Backend{Type: "udp", DataPath: "offload", DataPathReason: "named by -udp-datapath; on: TSO"}, verdictOK, "the kernel loads its programs"},
		{&status.Backend{Type: "vxlan", DataPath: "vxlan"}, verdictOK, "the kernel loads its programs"},
		{&status.Backend{Type: "udp", DataPath: "offload", DataPathReason: reason}, verdictWarn, reason},
	} {
		f := &facts{report: &status.Report{Snapshot: status.Snapshot{Backend: test.backend}}}
		if got := checkKernelPath(f); got.Verdict != test.verdict || !strings.Contains(got.Found, test.want) {
			t.Errorf("%+v: %+v", test.backend, got)
		}
	}
}

// What a ready daemon goes on without is a finding.
func TestDoctorReportsLosses(t *testing.T) {
	flags := &doctorFlags{store: &storeFlags{status: &statusClient{addr: "127.0.0.1:8286"}}}
	f := &facts{flags: flags, report: &status.Report{Ready: true}}
	if got := checkDaemon(f); got.Verdict != verdictOK {
		t.Errorf("without a loss: %+v", got)
	}
	f.report.Losses = []string{"peers are not probed: may not"}
	if got := checkDaemon(f); got.Verdict != verdictWarn || !strings.Contains(got.Found, f.report.Losses[0]) {
		t.Errorf("with a loss: %+v", got)
	}
}
