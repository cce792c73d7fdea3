package main

import "github.com/coreos/flannel/e2e/bench/result"

// targets are the goals of the subjects, as ratios to another subject of the same
// run.
func targets() []result.Target {
	const (
		raw     = "raw"
		vxlan   = "kernel-vxlan" // by hand
		plain   = "udp-plain"
		offload = "udp-offload"
		kernel  = "udp-kernel"
	)
	on, off := result.Scenario{Link: "on", Routes: 1}, result.Scenario{Link: "off", Routes: 1}
	many := result.Scenario{Link: "on", Routes: 10000}
	same := func(figure, subject, over string, at result.Scenario, limit float64) result.Target {
		return result.Target{Figure: figure, Subject: subject, At: at, Over: over, OverAt: at, Limit: limit}
	}
	return []result.Target{
		same("tcp1", offload, vxlan, on, 0.35),
		same("tcp1", offload, vxlan, off, 0.35),
		same("tcp1", offload, plain, on, 12),
		same("udp64", offload, plain, on, 2),
		same("udp-rr-p50", offload, plain, on, 1),
		{Figure: "udp64-cpu", Subject: offload, At: many, Over: offload, OverAt: on, Limit: 1.05},

		same("tcp1", kernel, vxlan, on, 1),
		same("tcp4", kernel, vxlan, on, 1),
		same("tcp1", kernel, raw, on, 0.9),
		same("tcp4", kernel, raw, on, 0.9),
		same("udp64", kernel, vxlan, on, 1),
		same("udp-rr-p50", kernel, vxlan, on, 1),
		same("udp-rr-p99", kernel, vxlan, on, 1),
		same("tcp1", kernel, vxlan, off, 0.9),
		same("tcp4", kernel, vxlan, off, 0.9),
		{Figure: "tcp1", Subject: kernel, At: many, Over: kernel, OverAt: on, Limit: 0.97},

		same("tcp1", "host-gw", "routes", on, 0.98),
		same("tcp4", "host-gw", "routes", on, 0.98),
		same("tcp1", "vxlan", vxlan, on, 0.98),
		same("tcp4", "vxlan", vxlan, on, 0.98),
		same("tcp1", "wireguard", "wireguard-go", on, 1),
		same("tcp4", "wireguard", "wireguard-go", on, 1),
	}
}
