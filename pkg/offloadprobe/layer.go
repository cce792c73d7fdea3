package offloadprobe

import "slices"

// Layer is the part of a path that has a fault; empty without a fault.
type Layer string

// These are the layers. Their order is that of their codes in receipts.
const (
	// Checksum: packets whose checksum is left to the device are lost.
	Checksum Layer = "checksum"
	// Segmentation: super-packets of TCP and UDP are lost. TCPSegmentation and
	// UDPSegmentation: those of one protocol are.
	Segmentation    Layer = "segmentation"
	TCPSegmentation Layer = "tcp-segmentation"
	UDPSegmentation Layer = "udp-segmentation"
	// ReceiveMerging: packets that the receiver merges are lost.
	ReceiveMerging Layer = "receive-merging"
	// PathMTU: packets of the device's MTU are lost, whatever offload they use.
	PathMTU Layer = "path-mtu"
	// ECN: packets with an ECN codepoint (RFC 3168) are lost, or arrive without it.
	ECN Layer = "ecn"
)

// codes has the layer of each code; 0 is no fault. New layers go to the end.
var codes = []Layer{"", Checksum, Segmentation, TCPSegmentation, UDPSegmentation, ReceiveMerging, PathMTU, ECN}

func (l Layer) code() byte { return byte(max(0, slices.Index(codes, l))) }

// layerOf returns the layer of a code. ok is false for a code of a newer release.
func layerOf(code byte) (l Layer, ok bool) {
	if int(code) >= len(codes) {
		return "", false
	}
	return codes[code], true
}
