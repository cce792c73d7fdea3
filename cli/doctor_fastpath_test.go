package cli

import (
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/status"
)

func TestDoctorReportsTheFastPath(t *testing.T) {
	for _, test := range []struct {
		path          *status.FastPath
		verdict, want string
	}{
		{nil, "", ""},
		{&status.FastPath{}, verdictOK, "serves no container"},
		{&status.FastPath{Containers: 2, TxPackets: 5, RxPackets: 6}, verdictOK, "serves 2 containers: 5 packets sent, 6 received"},
		{&status.FastPath{Off: []string{"switched off by -fastpath"}}, verdictWarn, "the long way: switched off by -fastpath"},
		{&status.FastPath{Cut: []string{"ipvl0 cuts super-packets: it has no tunnel offload"}}, verdictWarn, "the long way is slow: ipvl0 cuts super-packets"},
		{&status.FastPath{Containers: 1, Off: []string{"qdisc tbf at veth1"}}, verdictWarn, "serves 1 containers; other packets take the long way: qdisc tbf at veth1"},
	} {
		f := &facts{report: &status.Report{Snapshot: status.Snapshot{Backend: &status.Backend{FastPath: test.path}}}}
		if got := checkFastPath(f); got.Verdict != test.verdict || !strings.Contains(got.Found, test.want) {
			t.Errorf("%+v: %+v", test.path, got)
		}
	}
	if got := checkFastPath(&facts{}); got.Verdict != "" {
		t.Errorf("without a daemon: %+v", got)
	}
}
