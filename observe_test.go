package main

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/status"
)

func seen(peers ...status.Peer) status.Snapshot {
	return status.Snapshot{
		Store: status.Store{Reachable: true, Since: time.Unix(1, 0)},
		Lease: &status.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), ExpiresAt: time.Unix(1000, 0)}, Backend: &status.Backend{Peers: peers},
	}
}

func TestChangesInWords(t *testing.T) {
	subnet := netip.MustParsePrefix("10.5.2.0/24")
	heard := status.Peer{Subnet: subnet, Probe: &status.Probe{}}
	dead := status.Peer{Subnet: subnet, Probe: &status.Probe{Silent: true}}
	away := seen()
	away.Store.Reachable = false
	unready := seen()
	unready.NotReady = []string{"device"}
	renewed := seen()
	renewed.Lease = &status.Lease{Subnet: renewed.Lease.Subnet, ExpiresAt: time.Unix(2000, 0)}
	for _, tt := range []struct {
		before, now status.Snapshot
		want        []string
	}{
		{seen(heard), seen(heard), nil},
		{status.Snapshot{}, seen(), []string{"lease subnet subnet=10.5.1.0/24"}},
		{seen(), renewed, []string{"renewed lease subnet=10.5.1.0/24 expires=1970-01-01T00:33:20Z"}},
		{seen(), away, []string{"the store does not answer; packets go on"}},
		{away, seen(), []string{"the store answers again"}},
		{seen(), unready, []string{`not ready reason="device"`}},
		{unready, seen(), []string{"the network is complete"}},
		{seen(), seen(heard), []string{"peers joined count=1 subnets=[10.5.2.0/24]"}},
		{seen(heard), seen(), []string{"peers left count=1 subnets=[10.5.2.0/24]"}},
		{seen(heard), seen(dead), []string{"peers do not answer through the overlay count=1 subnets=[10.5.2.0/24]"}},
		{seen(dead), seen(heard), []string{"peers answer again count=1 subnets=[10.5.2.0/24]"}},
	} {
		if got := changes(tt.before, tt.now); !slices.Equal(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
