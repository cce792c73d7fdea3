package offloadrepair

import (
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/offloadprobe"
)

func TestCandidates(t *testing.T) {
	h := newHost("")
	h.on[Switch{"eth1", "tx-udp_tnl-segmentation"}], h.on[Switch{"eth1", "tx-udp_tnl-csum-segmentation"}] = true, true
	for _, tt := range []struct {
		layer   offloadprobe.Layer
		devices Devices
		want    []Switch
	}{
		{offloadprobe.Segmentation, Devices{Tunnel: "flannel.1", Encapsulated: ByKernel, Uplink: "eth0"}, []Switch{segmentation, tunnelChecksum, uplinkChecksum}},
		{offloadprobe.Segmentation, Devices{Encapsulated: ByKernel, Uplink: "eth0"}, []Switch{segmentation, uplinkChecksum}},
		{offloadprobe.Segmentation, Devices{Uplink: "eth0"}, []Switch{uplinkChecksum}},
		{offloadprobe.Segmentation, Devices{Tunnel: "flannel.1", Encapsulated: ByProcess, Uplink: "eth0"}, []Switch{{"eth0", "tx-udp-segmentation"}, tunnelChecksum, uplinkChecksum}},
		{offloadprobe.TCPSegmentation, Devices{Uplink: "eth0"}, []Switch{{"eth0", "tx-tcp-segmentation"}}},
		{offloadprobe.TCPSegmentation, Devices{Tunnel: "flannel.1", Encapsulated: ByProcess, Uplink: "eth0"}, []Switch{{"eth0", "tx-udp-segmentation"}, {"eth0", "tx-tcp-segmentation"}, {"flannel.1", "tx-tcp-segmentation"}}},
		{offloadprobe.ReceiveMerging, Devices{Tunnel: "flannel.1", Encapsulated: ByKernel, Uplink: "eth0"}, []Switch{tunnelGRO, uplinkGRO}},
		{offloadprobe.UDPSegmentation, Devices{Encapsulated: ByKernel, Uplink: "eth1"}, []Switch{
			{"eth1", "tx-udp_tnl-segmentation"}, {"eth1", "tx-udp_tnl-csum-segmentation"},
		}},
		{offloadprobe.UDPSegmentation, Devices{Encapsulated: ByKernel, Checksummed: true, Uplink: "eth1"}, []Switch{
			{"eth1", "tx-udp_tnl-csum-segmentation"}, {"eth1", "tx-udp_tnl-segmentation"},
		}},
		{offloadprobe.PathMTU, Devices{Tunnel: "flannel.1", Encapsulated: ByKernel, Uplink: "eth0"}, nil},
	} {
		if got, err := Candidates(h, tt.layer, tt.devices); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s with %+v: %v, %v; want %v", tt.layer, tt.devices, got, err, tt.want)
		}
	}
	if _, err := Candidates(h, offloadprobe.Checksum, Devices{Tunnel: "gone", Uplink: "eth0"}); err == nil {
		t.Error("no error for a device that is gone")
	}
}

// The features of packets of TCP over IPv6 have names of their own.
func TestCandidatesOfIPv6(t *testing.T) {
	h := newHost("")
	for _, feature := range []string{"tx-tcp6-segmentation", "tx-checksum-ipv6", "tx-checksum-ipv4"} {
		h.on[Switch{"eth0", feature}] = true
	}
	for _, tt := range []struct {
		layer offloadprobe.Layer
		want  []Switch
	}{
		{offloadprobe.TCPSegmentation, []Switch{{"eth0", "tx-tcp6-segmentation"}}},
		{offloadprobe.Checksum, []Switch{{"eth0", "tx-checksum-ip-generic"}, {"eth0", "tx-checksum-ipv6"}}},
	} {
		got, err := Candidates(h, tt.layer, Devices{Uplink: "eth0", Family: inet.IPv6})
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v, want %v", tt.layer, got, err, tt.want)
		}
	}
}
