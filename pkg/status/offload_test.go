package status

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// faulty is working with a fault of an offload, and a switch that is off.
func faulty() Snapshot {
	s := working()
	since := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	s.Backend.OffloadSwitch = &OffloadSwitch{Device: "eth0", Feature: "rx-gro", Layer: "receive-merging", Since: since}
	s.Backend.Peers[0].OffloadFaults = []OffloadFault{{
		Direction: ToPeer, Layer: "checksum", Since: since, Effect: "packets are lost", Fix: "ethtool -K eth0 tx off",
	}}
	return s
}

// A fault is a warning, with the command and the first peers. The host stays ready.
func TestOffloadWarning(t *testing.T) {
	s := faulty()
	s.HeldPeers, s.ConfigRefused = 0, ""
	for range 6 {
		p := s.Backend.Peers[0]
		p.OffloadFaults = slices.Clone(p.OffloadFaults)
		p.OffloadFaults[0].Direction = FromPeer
		s.Backend.Peers = append(s.Backend.Peers, p)
	}
	code, body := get(t, New(config(s)).handler, "/readyz")
	const six = "10.5.9.0/24, 10.5.9.0/24, 10.5.9.0/24, 10.5.9.0/24, 10.5.9.0/24, …"
	want := "ok\n" +
		"warning: offload fault (checksum) of packets to 1 of 7 peers: packets are lost; fix: ethtool -K eth0 tx off; peers: 10.5.9.0/24\n" +
		"warning: offload fault (checksum) of packets from 6 of 7 peers: packets are lost; fix: ethtool -K eth0 tx off; peers: " + six + "\n"
	if code != 200 || body != want {
		t.Errorf("%d\n%s, want\n%s", code, body, want)
	}
}

func TestOffloadJSON(t *testing.T) {
	text, err := json.Marshal(faulty())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"offload_switch":{"device":"eth0","feature":"rx-gro","layer":"receive-merging","since":"2024-05-06T07:08:09Z"}`,
		`"offload_faults":[{"direction":"to_peer","layer":"checksum","since":"2024-05-06T07:08:09Z","effect":"packets are lost","fix":"ethtool -K eth0 tx off"}]`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s\nhas no %s", text, want)
		}
	}
}
