package rig

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"net"
)

// Subject is one way of carrying packets between two hosts.
type Subject struct {
	Name, About string
	open        func(context.Context, *Pair) (way, error)
}

// Reference is the name of the subject that all others are compared with.
const Reference = "kernel-vxlan"

// Subjects are all that there are, in the order in which they are measured. A
// further backend or data path is a further entry.
func Subjects() []Subject {
	return []Subject{
		{"raw", "no tunnel: the veth pair itself", openRaw},
		{Reference, "kernel VXLAN, set up by hand", openVXLAN},
		{"udp-plain", "flannel, udp, -udp-datapath=plain", daemons{typ: "udp", dataPath: "plain"}.open},
		{"udp-offload", "flannel, udp, -udp-datapath=offload", daemons{typ: "udp", dataPath: "offload"}.open},
		{"udp-kernel", "flannel, udp, -udp-datapath=kernel", daemons{typ: "udp", dataPath: "kernel"}.open},
		{"routes", "routes through the other host, set up by hand: what host-gw is compared with", openRoutes},
		{"host-gw", "flannel, host-gw", daemons{typ: "host-gw"}.open},
		{"vxlan", "flannel, vxlan", daemons{typ: "vxlan", data: vxlanData}.open},
		{"wireguard", "flannel, wireguard", daemons{typ: "wireguard", data: wireguardData}.open},
	}
}

// vxlanData is the BackendData of peer number n.
func vxlanData(n int) any {
	return struct {
		VNI     int
		VtepMAC string
	}{1, peerMAC(n).String()}
}

// peerMAC is the hardware address of peer number n, a locally administered one.
func peerMAC(n int) net.HardwareAddr {
	return binary.BigEndian.AppendUint32(net.HardwareAddr{0x02, 0x00}, uint32(n))
}

// wireguardData is the BackendData of peer number n. Any 32 bytes are a public
// key (RFC 7748 section 5).
func wireguardData(n int) any {
	var key [32]byte
	binary.LittleEndian.PutUint32(key[:], uint32(n))
	return struct {
		PublicKey string
		Port      int
	}{base64.StdEncoding.EncodeToString(key[:]), 51820}
}
