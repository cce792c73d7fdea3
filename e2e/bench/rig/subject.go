package rig

import (
	"context"
	"encoding/binary"
	"net"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/inet"
)

// Subject is a transport between two hosts.
type Subject struct {
	Name, About string
	// ByHand names the subject that is the same transport set up by hand; "": none.
	ByHand string
	open   func(context.Context, *Pair) (transport, error)
	// byHand is true if no daemon of flannel runs.
	byHand bool
}

// Reference names the subject that all others are compared with.
const Reference = "kernel-vxlan"

// Subjects returns all subjects, in the order of measurement.
func Subjects() []Subject {
	return []Subject{
		{Name: "raw", About: "no overlay: routes through the other host, set up by hand", open: devices{noOverhead, addRoutes}.open, byHand: true},
		{Name: Reference, About: "kernel VXLAN, set up by hand", open: devices{vxlanOverhead, addVXLAN}.open, byHand: true},
		{Name: "fou", About: "the datagrams of flannel's udp by the kernel's own FOU and a tunnel device per peer, set up by hand", open: devices{udpOverhead, addFOU}.open, byHand: true},
		{Name: "bareudp", About: "the same datagrams by a bareudp device of the kernel, set up by hand", open: devices{udpOverhead, addBareUDP}.open, byHand: true},
		{Name: "udp-plain", About: "flannel, udp, -udp-datapath=plain", open: daemons{typ: "udp", dataPath: "plain"}.open},
		{Name: "udp-offload", About: "flannel, udp, -udp-datapath=offload", open: daemons{typ: "udp", dataPath: "offload"}.open},
		{Name: "udp-kernel", About: "flannel, udp, -udp-datapath=kernel", open: daemons{typ: "udp", dataPath: "kernel"}.open},
		{Name: "udp-fast", About: "flannel, udp, -udp-datapath=kernel -fastpath=auto", open: daemons{typ: "udp", dataPath: "kernel", fastPath: true}.open},
		{Name: "host-gw", About: "flannel, host-gw", ByHand: "raw", open: daemons{typ: "host-gw"}.open},
		{Name: "host-gw-fast", About: "flannel, host-gw, -fastpath=auto", ByHand: "raw", open: daemons{typ: "host-gw", fastPath: true}.open},
		{Name: "vxlan", About: "flannel, vxlan", ByHand: Reference, open: daemons{typ: "vxlan", data: vxlanData}.open},
		{Name: "wireguard-go", About: "wireguard-go's own program, set up by hand", open: openWireGuard, byHand: true},
		{Name: "wireguard", About: "flannel, wireguard", ByHand: "wireguard-go", open: daemons{typ: "wireguard", data: wireguardData}.open},
	}
}

// vxlanData returns the BackendData of peer number n, the same for both families.
func vxlanData(_ inet.Family, n int) any {
	return struct {
		VNI     int
		VtepMAC string
	}{1, peerMAC(n).String()}
}

// peerMAC returns the hardware address of peer number n, a locally administered one.
func peerMAC(n int) net.HardwareAddr {
	return binary.BigEndian.AppendUint32(net.HardwareAddr{0x02, 0x00}, uint32(n))
}

// wireguardData returns the BackendData of peer number n. IPv6 has the next port.
func wireguardData(f inet.Family, n int) any {
	return struct {
		PublicKey string
		Port      int
	}{wireguardKey(n).String(), wireguardPort + int(f)}
}

// wireguardKey returns the public key of peer number n. Any 32 bytes are a key (RFC
// 7748, section 5).
func wireguardKey(n int) (key wgtypes.Key) {
	binary.LittleEndian.PutUint32(key[:], uint32(n))
	return key
}
