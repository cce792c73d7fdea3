package main

import (
	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
)

// maxRetransmits is the limit for nested overlays, in segments per second. Kernel
// VXLAN has up to 75.
const maxRetransmits = 75

// targets are the goals of flannel's subjects, mostly of the fast path between
// containers, as ratios to another subject of the same run, and to the same subject in
// another scenario.
func targets() []result.Target {
	const (
		vxlan  = rig.Reference // by hand
		hostGW = "host-gw"     // no overlay
		fast   = "udp-fast"
	)
	var found []result.Target
	over := func(other, subject string, at result.Scenario, figure string, limit float64) {
		found = append(found, result.Target{Figure: figure, Subject: subject, At: at, Over: other, OverAt: at, Limit: limit})
	}
	itself := func(subject string, at result.Scenario, figure string, limit float64) {
		found = append(found, result.Target{Figure: figure, Subject: subject, At: at, Over: subject, OverAt: usual, Limit: limit})
	}

	over(vxlan, fast, usual, "tcp1", 1.25)
	over(hostGW, fast, usual, "tcp1", 1.1)
	over(vxlan, fast, usual, "tcp4", 1.6)
	over(hostGW, fast, usual, "tcp4", 1)
	over(vxlan, fast, usual, "udp64", 2)
	over(vxlan, fast, usual, "udp-rr-p50", 0.85)
	over(vxlan, fast, usual, "udp-rr-p99", 0.9)
	over(vxlan, fast, usual, "crr", 1.1)
	over(vxlan, fast, usual, "tcp1-cpu", 0.8)
	over(vxlan, fast, usual, "tcp4-cpu", 0.8)
	over(vxlan, fast, usual, "udp-rr-cpu", 0.85)
	over(vxlan, fast, usual, "tcp-rr-cpu", 0.85)

	over(vxlan, fast, offLink(), "tcp1", 1.2)
	over(hostGW, fast, offLink(), "tcp1", 0.95)
	over(vxlan, fast, offLink(), "tcp4", 1.1)
	over(hostGW, fast, offLink(), "tcp4", 0.95)
	over(vxlan, fast, offLink(), "udp64", 1.6)
	over(vxlan, fast, offLink(), "udp-rr-p50", 0.85)
	over(vxlan, fast, offLink(), "crr", 1.1)

	for _, subject := range []string{"udp-offload", "udp-kernel", fast} {
		over(vxlan, subject, nested(), "tcp1", 1)
		found = append(found, result.Target{Figure: "tcp1-retrans", Subject: subject, At: nested(), Limit: maxRetransmits})
	}
	over(vxlan, fast, local(), "tcp1", 0.98)
	over(vxlan, fast, local(), "udp-rr-p50", 1.02)

	for _, figure := range []string{"tcp1", "tcp4", "udp64", "crr"} {
		itself(fast, manyRules(), figure, 0.97)
	}
	itself(fast, manyRules(), "udp-rr-p50", 1.03)
	itself(fast, manyPeers(), "tcp1", 0.97)
	itself(fast, manyPeers(), "udp64", 0.97)

	for _, subject := range bothFamilies() {
		itself(subject, insideV6(), "tcp1", 0.97)
		itself(subject, insideV6(), "udp-rr-p50", 1.03)
	}
	return found
}
