package status

import (
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Counters of an uncounted peer are absent, not zero.
func TestUncountedPeerHasNoCounters(t *testing.T) {
	for _, uncounted := range []bool{false, true} {
		peer := Peer{Subnet: netip.MustParsePrefix("10.5.2.0/24"), PublicIP: netip.MustParseAddr("192.0.2.2"), Uncounted: uncounted}
		registry := prometheus.NewRegistry()
		registry.MustRegister(collector{source: func() Snapshot { return Snapshot{Backend: &Backend{Peers: []Peer{peer}}} }})
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		counted := false
		for _, f := range families {
			counted = counted || f.GetName() == "flannel_peer_transmit_bytes_total"
		}
		if counted == uncounted {
			t.Errorf("uncounted %v: the counters are there: %v", uncounted, counted)
		}
	}
}
