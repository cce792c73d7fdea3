package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/offloadrepair"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/uplink"
)

// The fix of a narrow path takes from the uplink what the path lacks, once that is
// measured.
func TestLowerMTU(t *testing.T) {
	o := &offloads{uplinks: [len(inet.Families)]uplink.Uplink{inet.IPv4: {Name: "eth0", MTU: 1500}, inet.IPv6: {Name: "eth1", MTU: 9000}}}
	v4, v6 := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("fd00:5:0:1::/64")
	for _, tt := range []struct {
		peer status.Peer
		full int
		want string
	}{
		{status.Peer{Subnet: v4, Probe: &status.Probe{MTU: 1350}}, 1450, "ip link set eth0 mtu 1400"},
		{status.Peer{Subnet: v6, Probe: &status.Probe{MTU: 1430}}, 8930, "ip link set eth1 mtu 1500"},
		{status.Peer{Subnet: v4, Probe: &status.Probe{MTU: 1450}}, 1450, "flannel doctor has the sizes"},
		{status.Peer{Subnet: v4, Probe: &status.Probe{}}, 1450, "flannel doctor has the sizes"},
		{status.Peer{Subnet: v4}, 1450, "flannel doctor has the sizes"},
	} {
		if got := o.lowerMTU(&tt.peer, tt.full); !strings.HasSuffix(got, tt.want) {
			t.Errorf("%+v with %+v: %q, want %q", tt.peer, tt.peer.Probe, got, tt.want)
		}
	}
}

// The uplink segments packets in the kernel's tunnels, and datagrams of this process.
func TestEncapsulation(t *testing.T) {
	for _, tt := range []struct {
		dataPath, device string
		want             offloadrepair.Encapsulation
	}{
		{"routes", "eth0", offloadrepair.Bare},
		{"vxlan", "flannel.1", offloadrepair.ByKernel},
		{"vxlan", "eth0", offloadrepair.Bare}, // DirectRouting
		{"kernel", "flannel0", offloadrepair.ByKernel},
		{"offload", "flannel0", offloadrepair.ByProcess},
		{"plain", "flannel0", offloadrepair.ByProcess},
		{"kernel", "flannel-wg", offloadrepair.Bare},
		{"userspace", "flannel-wg", offloadrepair.ByProcess},
	} {
		o := &offloads{dataPath: func() string { return tt.dataPath }}
		if got := o.encapsulation(tt.device, "eth0"); got != tt.want {
			t.Errorf("%s with %s: %v, want %v", tt.device, tt.dataPath, got, tt.want)
		}
	}
}
