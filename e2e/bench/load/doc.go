// Package load puts load on the way between two hosts and measures what comes
// through.
//
//	TCP throughput       iperf3
//	packets per second   sockperf sends as fast as it can; a sink of our own counts
//	request-response     sockperf ping-pong
//
// Why a sink of our own: at 64 bytes, the receivers of iperf3 and sockperf, one
// or two system calls a packet, are slower than the ways that they are to
// measure, and drop what a faster one would have taken. Ours takes 64 packets
// a call and has a large buffer, so that what it counts is what the way has
// delivered.
//
// The cost of a transfer is the busy time of the whole machine while the
// client runs. Sender, receiver and both hosts are on the one machine, so the
// cost is that of both ends, the load's own part included.
package load

import (
	"net/netip"

	"github.com/coreos/flannel/pkg/netnstest"
)

// End is one end of the way that is measured: a host, and the address there
// that the load is bound to.
type End struct {
	*netnstest.Host
	Addr netip.Addr
}

// Where servers listen, each tool's default. Each runs alone in its namespace;
// but a port whose connections iperf3 has just closed is not free for sockperf,
// which does not set SO_REUSEADDR.
const (
	iperfPort    = 5201
	sockperfPort = 11111
)
