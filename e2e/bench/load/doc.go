// Package load generates load between two ends and measures what arrives.
//
//	TCP throughput            iperf3
//	UDP packets per second    the load program sends; a sink counts
//	request-response          the load program: one request at a time
//	connect-request-response  the same, with a new connection for each request
//
// The load program is the benchmark's own executable, started again (see [Main]).
// It makes one system call a packet, on blocking sockets.
//
// A receiver with one system call a packet is slower than the measured transports
// at 64 bytes, and drops packets. The sink receives 64 packets a call into a large
// buffer, so it counts what the transport has delivered.
//
// The cost of a load is the busy time of the whole machine. Both hosts are on this
// machine, so it includes sender, receiver and the load's own part.
package load

import (
	"net/netip"

	"github.com/coreos/flannel/pkg/netnstest"
)

// End is a network namespace and the address there that the load binds to.
type End struct {
	*netnstest.Host
	Addr netip.Addr
}

// The servers' ports: iperf3's default, and one of the load program.
const (
	iperfPort = 5201
	loadPort  = 11111
)
