package udp

import "sync/atomic"

// reason is why a packet was refused. Its names are part of the status and metrics
// interface.
type reason int

const (
	// admitted: not refused.
	admitted reason = iota
	// noRoute: out; no lease covers the destination.
	noRoute
	// malformed: not one whole IP packet, by its version and lengths.
	malformed
	// unknownOuterSource: in; no lease names the datagram's source.
	unknownOuterSource
	// innerSourceMismatch: in; the inner source is not in that host's subnets.
	innerSourceMismatch
	// innerDestinationMismatch: in; the inner destination is not in our subnets.
	innerDestinationMismatch
	// tooBig: out; exceeds the path's MTU, and is IPv6 or has DF.
	tooBig
	// sendError: out; the kernel refused the datagram with another error.
	sendError
	// deviceWriteError: in; the tunnel device refused the packet.
	deviceWriteError
	// receiveOverflow: in; the socket's buffer was full (SO_RXQ_OVFL).
	receiveOverflow
	// wrongInterface: in; no route of this host to the sender names the interface
	// that the datagram arrived by.
	wrongInterface

	reasons
)

var reasonNames = [reasons]string{
	noRoute:                  "no_route",
	malformed:                "malformed",
	unknownOuterSource:       "unknown_outer_source",
	innerSourceMismatch:      "inner_source_mismatch",
	innerDestinationMismatch: "inner_destination_mismatch",
	tooBig:                   "too_big",
	sendError:                "send_error",
	deviceWriteError:         "device_write_error",
	receiveOverflow:          "receive_overflow",
	wrongInterface:           "wrong_interface",
}

// drops counts refused packets; any goroutine may add.
type drops [reasons]atomic.Uint64

func (d *drops) add(r reason) { d[r].Add(1) }

func (d *drops) addAll(r reason, packets int) { d[r].Add(uint64(packets)) }

func (d *drops) snapshot() map[string]uint64 {
	m := make(map[string]uint64, reasons-1)
	for r := admitted + 1; r < reasons; r++ {
		m[reasonNames[r]] = d[r].Load()
	}
	return m
}
