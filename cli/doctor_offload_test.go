package cli

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/status"
)

// The check names each fault and its direction, and has the command of the first. It says
// if most peers are known to have no fault. A switch that flannel keeps off is a warning.
func TestCheckOffloadFaults(t *testing.T) {
	toPeer := status.OffloadFault{Direction: status.ToPeer, Layer: "checksum", Effect: "packets are lost", Fix: "ethtool -K eth0 x off"}
	fromPeer := status.OffloadFault{Direction: status.FromPeer, Layer: "path-mtu", Effect: "large packets are lost", Fix: "another"}
	peer := func(faults ...status.OffloadFault) status.Peer {
		return status.Peer{Subnet: netip.MustParsePrefix("10.5.9.0/24"), PublicIP: netip.MustParseAddr("192.0.2.9"), OffloadFaults: faults}
	}
	checked := peer()
	checked.OffloadsChecked = true
	off := &status.OffloadSwitch{Device: "eth0", Feature: "rx-gro", Layer: "receive-merging"}
	for name, tt := range map[string]struct {
		backend *status.Backend
		verdict string
		words   string
		fix     string
	}{
		"no network": {nil, "", "", ""},
		"no peers":   {&status.Backend{}, "", "", ""},
		"healthy":    {&status.Backend{Peers: []status.Peer{peer()}}, verdictOK, "no fault", ""},
		"one direction": {&status.Backend{OffloadSwitch: off, Peers: []status.Peer{peer(toPeer)}}, verdictFail,
			"checksum: packets are lost to 10.5.9.0/24 at 192.0.2.9, in this direction only", "ethtool -K eth0 x off"},
		"both": {&status.Backend{Peers: []status.Peer{peer(toPeer, fromPeer)}}, verdictFail,
			"to 10.5.9.0/24 at 192.0.2.9; path-mtu: large packets are lost from 10.5.9.0/24 at 192.0.2.9", "ethtool -K eth0 x off"},
		"one of three peers": {&status.Backend{Peers: []status.Peer{checked, peer(toPeer), checked}}, verdictFail,
			"at 192.0.2.9, in this direction only; 2 of 3 peers have no fault", "ethtool -K eth0 x off"},
		"two peers are not known": {&status.Backend{Peers: []status.Peer{peer(), peer(toPeer), peer()}}, verdictFail,
			"at 192.0.2.9, in this direction only\n", "ethtool -K eth0 x off"},
		"switch": {&status.Backend{OffloadSwitch: off, Peers: []status.Peer{peer()}}, verdictWarn, "keeps rx-gro of eth0 off", "replace the driver of eth0"},
	} {
		f := &facts{report: &status.Report{Snapshot: status.Snapshot{Backend: tt.backend}}}
		got := checkOffloadFaults(f)
		if got.Verdict != tt.verdict || !strings.Contains(got.Found+"\n", tt.words) || !strings.HasPrefix(got.Fix, tt.fix) {
			t.Errorf("%s: %+v, want %s, %q and %q", name, got, tt.verdict, tt.words, tt.fix)
		}
	}
}

// A veth uplink begins without GRO. The kernel data path is faster so, the others and
// other drivers are not.
func TestDoctorKnowsVethWithoutGRO(t *testing.T) {
	daemon := func(path string) *status.Report {
		return &status.Report{Snapshot: status.Snapshot{Backend: &status.Backend{DataPath: path}}}
	}
	for _, test := range []struct {
		driver string
		report *status.Report
		want   []string
	}{
		{"veth", daemon("kernel"), []string{"tso"}},
		{"veth", daemon("offload"), []string{"gro", "tso"}},
		{"veth", nil, []string{"gro", "tso"}},
		{"virtio_net", daemon("kernel"), []string{"gro", "tso"}},
	} {
		on, off := offloadNames(netdev.Offloads{Driver: test.driver, GSO: true}, test.report)
		if !slices.Equal(off, test.want) || !slices.Equal(on, []string{"gso"}) {
			t.Errorf("%s, %+v: on %v, off %v; want off %v", test.driver, test.report, on, off, test.want)
		}
	}
}
