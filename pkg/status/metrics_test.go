package status

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

const workingMetrics = `
# HELP flannel_bad_lease_data_total Keys and values in the lease store that were ignored, because they did not parse or contradicted another.
# TYPE flannel_bad_lease_data_total counter
flannel_bad_lease_data_total 5
# HELP flannel_config_refused 1 if a changed network configuration is not in force, because it needs a restart or is invalid.
# TYPE flannel_config_refused gauge
flannel_config_refused 1
# HELP flannel_datapath_info Always 1; the labels are the backend and its data path.
# TYPE flannel_datapath_info gauge
flannel_datapath_info{backend="udp",datapath="offload"} 1
# HELP flannel_dropped_packets_total Dropped packets, by reason.
# TYPE flannel_dropped_packets_total counter
flannel_dropped_packets_total{reason="malformed"} 0
flannel_dropped_packets_total{reason="no_route"} 3
# HELP flannel_fastpath_containers Addresses of containers that the fast path serves. Absent without a fast path.
# TYPE flannel_fastpath_containers gauge
flannel_fastpath_containers 1
# HELP flannel_fastpath_long_way_packets_total Containers' packets that did not take the fast path, by reason.
# TYPE flannel_fastpath_long_way_packets_total counter
flannel_fastpath_long_way_packets_total{reason="first_packets"} 16
# HELP flannel_fastpath_receive_packets_total Containers' packets received by the fast path.
# TYPE flannel_fastpath_receive_packets_total counter
flannel_fastpath_receive_packets_total 70
# HELP flannel_fastpath_transmit_packets_total Containers' packets sent by the fast path.
# TYPE flannel_fastpath_transmit_packets_total counter
flannel_fastpath_transmit_packets_total 80
# HELP flannel_held_peers Peers that are kept for now although they disappeared from the store in a mass disappearance.
# TYPE flannel_held_peers gauge
flannel_held_peers 2
# HELP flannel_lease_expiration_timestamp_seconds When the lease of our subnet ends unless it is renewed. Absent for a reservation, which does not expire.
# TYPE flannel_lease_expiration_timestamp_seconds gauge
flannel_lease_expiration_timestamp_seconds 4.1025422455e+09
# HELP flannel_lease_info Always 1; the label is the subnet that this host has leased. Absent without a lease.
# TYPE flannel_lease_info gauge
flannel_lease_info{subnet="10.5.72.0/24"} 1
# HELP flannel_lost_log_lines_total Lines of the log that its reader did not take.
# TYPE flannel_lost_log_lines_total counter
flannel_lost_log_lines_total 7
# HELP flannel_mtu_bytes Largest packet that a container may send.
# TYPE flannel_mtu_bytes gauge
flannel_mtu_bytes 1472
# HELP flannel_node_info Always 1; the labels are the interface to the other hosts and this host's address.
# TYPE flannel_node_info gauge
flannel_node_info{iface="eth0",public_ip="192.0.2.10"} 1
# HELP flannel_offload_switch_off 1 while flannel keeps a feature of a device off because of a fault of an offload. Absent without one.
# TYPE flannel_offload_switch_off gauge
flannel_offload_switch_off{device="eth0",feature="rx-gro",layer="receive-merging"} 1
# HELP flannel_peer_info Always 1; the labels are a peer's subnet and address.
# TYPE flannel_peer_info gauge
flannel_peer_info{public_ip="192.0.2.11",subnet="10.5.9.0/24"} 1
# HELP flannel_peer_offload_fault 1 while packets to or from the host of a subnet are lost by a fault of an offload, by direction and layer. Absent without a fault.
# TYPE flannel_peer_offload_fault gauge
flannel_peer_offload_fault{direction="to_peer",layer="checksum",subnet="10.5.9.0/24"} 1
# HELP flannel_peer_probe_answered 0 while the last three pings to the host of a subnet had no answer.
# TYPE flannel_peer_probe_answered gauge
flannel_peer_probe_answered{subnet="10.5.9.0/24"} 1
# HELP flannel_peer_probe_loss_ratio Share of the last 20 pings to the host of a subnet that had no answer, 0 to 1.
# TYPE flannel_peer_probe_loss_ratio gauge
flannel_peer_probe_loss_ratio{subnet="10.5.9.0/24"} 0.05
# HELP flannel_peer_probe_mtu_bytes Largest packet that reaches the host of a subnet. Absent until it is known.
# TYPE flannel_peer_probe_mtu_bytes gauge
flannel_peer_probe_mtu_bytes{subnet="10.5.9.0/24"} 1472
# HELP flannel_peer_probe_round_trip_seconds Last round trip of a ping to the host of a subnet, through the overlay.
# TYPE flannel_peer_probe_round_trip_seconds gauge
flannel_peer_probe_round_trip_seconds{subnet="10.5.9.0/24"} 0.00025
# HELP flannel_peer_receive_bytes_total Bytes of containers' packets received from the host of a subnet.
# TYPE flannel_peer_receive_bytes_total counter
flannel_peer_receive_bytes_total{subnet="10.5.9.0/24"} 400
# HELP flannel_peer_receive_packets_total Containers' packets received from the host of a subnet.
# TYPE flannel_peer_receive_packets_total counter
flannel_peer_receive_packets_total{subnet="10.5.9.0/24"} 3
# HELP flannel_peer_transmit_bytes_total Bytes of containers' packets sent to the host of a subnet.
# TYPE flannel_peer_transmit_bytes_total counter
flannel_peer_transmit_bytes_total{subnet="10.5.9.0/24"} 200
# HELP flannel_peer_transmit_packets_total Containers' packets sent to the host of a subnet.
# TYPE flannel_peer_transmit_packets_total counter
flannel_peer_transmit_packets_total{subnet="10.5.9.0/24"} 1
# HELP flannel_peers Number of peers, the other hosts with a subnet.
# TYPE flannel_peers gauge
flannel_peers 1
# HELP flannel_ready 1 if the host's network is complete, as in /readyz.
# TYPE flannel_ready gauge
flannel_ready 1
# HELP flannel_reconcile_duration_seconds Time to reconcile routes and tables, by trigger: store (leases changed) or kernel (the host was compared with the desired state, and repaired).
# TYPE flannel_reconcile_duration_seconds histogram
flannel_reconcile_duration_seconds_bucket{trigger="kernel",le="0.0001"} 0
flannel_reconcile_duration_seconds_bucket{trigger="kernel",le="0.001"} 0
flannel_reconcile_duration_seconds_bucket{trigger="kernel",le="0.01"} 0
flannel_reconcile_duration_seconds_bucket{trigger="kernel",le="0.1"} 0
flannel_reconcile_duration_seconds_bucket{trigger="kernel",le="1"} 0
flannel_reconcile_duration_seconds_bucket{trigger="kernel",le="10"} 0
flannel_reconcile_duration_seconds_bucket{trigger="kernel",le="+Inf"} 0
flannel_reconcile_duration_seconds_sum{trigger="kernel"} 0
flannel_reconcile_duration_seconds_count{trigger="kernel"} 0
flannel_reconcile_duration_seconds_bucket{trigger="store",le="0.0001"} 0
flannel_reconcile_duration_seconds_bucket{trigger="store",le="0.001"} 0
flannel_reconcile_duration_seconds_bucket{trigger="store",le="0.01"} 1
flannel_reconcile_duration_seconds_bucket{trigger="store",le="0.1"} 1
flannel_reconcile_duration_seconds_bucket{trigger="store",le="1"} 1
flannel_reconcile_duration_seconds_bucket{trigger="store",le="10"} 1
flannel_reconcile_duration_seconds_bucket{trigger="store",le="+Inf"} 1
flannel_reconcile_duration_seconds_sum{trigger="store"} 0.003
flannel_reconcile_duration_seconds_count{trigger="store"} 1
# HELP flannel_store_reachable 1 if the last round trip to the lease store succeeded.
# TYPE flannel_store_reachable gauge
flannel_store_reachable{api="3"} 1
# HELP flannel_store_since_timestamp_seconds When flannel_store_reachable last changed. Absent before the first round trip.
# TYPE flannel_store_since_timestamp_seconds gauge
flannel_store_since_timestamp_seconds 1.714979289e+09
`

// A family that the host does not carry has no metric.
func TestMetricsOfFamilies(t *testing.T) {
	for families, has := range map[string][2]bool{"IPv4": {true, false}, "IPv6": {false, true}, "both": {true, true}} {
		s := Snapshot{Lease: new(Lease)}
		if has[0] {
			s.Node.Iface, s.Node.PublicIP, s.Lease.Subnet = "eth0", netip.MustParseAddr("192.0.2.10"), netip.MustParsePrefix("10.5.1.0/24")
		}
		if has[1] {
			s.Node.IPv6Iface, s.Node.PublicIPv6, s.Lease.IPv6Subnet = "eth1", netip.MustParseAddr("2001:db8::10"), netip.MustParsePrefix("fd00:5:0:1::/64")
		}
		_, body := get(t, New(config(s)).handler, "/metrics")
		for line, want := range map[string]bool{
			`flannel_node_info{iface="eth0",public_ip="192.0.2.10"} 1`: has[0], `flannel_lease_info{subnet="10.5.1.0/24"} 1`: has[0],
			`flannel_node_info{iface="eth1",public_ip="2001:db8::10"} 1`: has[1], `flannel_lease_info{subnet="fd00:5:0:1::/64"} 1`: has[1],
			`="invalid`: false,
		} {
			if strings.Contains(body, line) != want {
				t.Errorf("%s: %s is there: %t", families, line, !want)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	c := config(faulty())
	c.Reconciles = NewReconciles()
	c.Reconciles.Store(3 * time.Millisecond)
	_, body := get(t, New(c).handler, "/metrics")
	var ours strings.Builder
	for line := range strings.Lines(body) {
		if strings.Contains(line, "flannel_") && !strings.Contains(line, "flannel_build_info") {
			ours.WriteString(line)
		}
	}
	if got, want := ours.String(), workingMetrics[1:]; got != want {
		t.Errorf("metrics are\n%s\nwant\n%s", got, want)
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "flannel_") {
			t.Errorf("lint: %s: %s", p.Metric, p.Text)
		}
	}
	if got, want := len(all), strings.Count(workingMetrics, "# TYPE"); got != want { // build_info less, the histogram more
		t.Errorf("%d metrics are described, %d tested", got, want)
	}
}

func TestMetricsPage(t *testing.T) {
	reserved := working()
	reserved.Lease = &Lease{Subnet: reserved.Lease.Subnet, Reserved: true}
	odd := working()
	odd.Backend.Peers = append(odd.Backend.Peers, odd.Backend.Peers[0]) // one subnet twice
	for name, tt := range map[string]struct {
		s        Snapshot
		has, not string
	}{
		"build and runtime":   {working(), `flannel_build_info{goversion="go`, "\xff"},
		"process":             {working(), "process_open_fds", "\xff"},
		"go":                  {working(), "go_goroutines", "\xff"},
		"starting":            {starting(), "flannel_ready 0", "flannel_lease"},
		"reservation":         {reserved, "flannel_lease_info", "flannel_lease_expiration"},
		"one series is wrong": {odd, "flannel_ready 1", "\xff"},
	} {
		if code, body := get(t, New(config(tt.s)).handler, "/metrics"); code != 200 || !strings.Contains(body, tt.has) || strings.Contains(body, tt.not) {
			t.Errorf("%s: %d, want %q and not %q in\n%s", name, code, tt.has, tt.not, body)
		}
	}
}

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
