package cli

import (
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
)

func TestRoomForNeighbours(t *testing.T) {
	for _, test := range []struct {
		peers, limit int
		verdict      string
		fix          string
	}{
		{peers: 0, limit: 1024, verdict: verdictOK},
		{peers: 512, limit: 1024, verdict: verdictOK},
		{peers: 513, limit: 1024, verdict: verdictWarn, fix: "gc_thresh3=4104"},
		{peers: 10000, limit: 16384, verdict: verdictWarn, fix: "gc_thresh3=80000"},
	} {
		f := checkNeighbourLimit(inet.IPv4, test.peers, test.limit)
		if f.Verdict != test.verdict || !strings.Contains(f.Fix, test.fix) {
			t.Errorf("%d peers, limit %d: %+v", test.peers, test.limit, f)
		}
	}
}
