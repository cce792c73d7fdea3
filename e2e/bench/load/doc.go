// Package load generates load between two hosts and measures what arrives.
//
//	TCP throughput       iperf3
//	packets per second   sockperf sends as fast as it can; a sink of our own counts
//	request-response     sockperf ping-pong
//
// The receivers of iperf3 and sockperf need one or two system calls a packet. At 64
// bytes they are slower than the measured transports and drop packets. The sink
// receives 64 packets a call into a large buffer, so it counts what the transport
// has delivered.
//
// The cost of a transfer is the busy time of the whole machine while the client
// runs. Both hosts are on this machine, so it includes sender, receiver and the
// load's own part.
package load

import (
	"net/netip"

	"github.com/coreos/flannel/pkg/netnstest"
)

// End is a host and the address there that the load binds to.
type End struct {
	*netnstest.Host
	Addr netip.Addr
}

// The servers' ports, each tool's default. They differ because sockperf does not
// set SO_REUSEADDR, so it cannot use a port whose connections iperf3 has just closed.
const (
	iperfPort    = 5201
	sockperfPort = 11111
)
