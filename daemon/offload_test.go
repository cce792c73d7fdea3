package daemon

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/offloadprobe"
	"github.com/coreos/flannel/pkg/offloadrepair"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// A link-local address of IPv6 names no interface. A socket cannot have it, and the probes
// of IPv4 would end with those of IPv6.
func TestOffloadAddrsOfALinkLocalUplink(t *testing.T) {
	l := &subnet.Lease{
		Subnet: netip.MustParsePrefix("10.5.1.0/24"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:1::/64"),
		Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1"), PublicIPv6: netip.MustParseAddr("fe80::1")},
	}
	l.Attrs.OffloadPort = 8287
	for backend, want := range map[string][]string{
		"host-gw": {"192.0.2.1:8287"},
		"vxlan":   {"10.5.1.0:8287", "[fd00:5:0:1::]:8287"},
	} {
		var got []string
		for _, a := range offloadAddrs(&subnet.Config{BackendType: backend}, l, inet.Families[:]) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: probes at %v, want %v", backend, got, want)
		}
	}
}

// Probes that cannot run find no fault, and no end of one. So the switch that an earlier run
// has turned off is on again.
func TestSwitchWithoutProbes(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	dir, device, feature := t.TempDir(), netnstest.Uplink, "tx-checksum-ip-generic"
	note, err := json.Marshal(offloadrepair.Note{
		Switch: offloadrepair.Switch{Device: device, Feature: feature}, Layer: offloadprobe.Checksum, Boot: clock.Now().Boot,
	})
	if err == nil {
		err = os.WriteFile(offloadrepair.NotePath(dir), note, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	unusable := netip.MustParseAddrPort("[fe80::1]:8287") // without an interface
	err = h.Do(func() error {
		o, err := newOffloads(&Options{offloadRepair: true, stateDir: dir}, [len(inet.Families)]uplink.Uplink{}, nil, offloadprobe.Config{
			Locals: []netip.AddrPort{unusable}, Interval: time.Minute, Peers: func() []offloadprobe.Peer { return nil },
		})
		if err != nil {
			return err
		}
		defer o.close()
		if err := o.features.Switch(device, feature, false); err != nil {
			return err
		}
		if err := o.Run(t.Context()); err == nil {
			t.Error("the probes run")
		}
		on, err := o.features.Switchable(device)
		if !on[feature] {
			t.Errorf("%s of %s is off", feature, device)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(offloadrepair.NotePath(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the note: %v", err)
	}
}

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
func TestEncapsulationBy(t *testing.T) {
	for _, tt := range []struct {
		encapsulation backend.Encapsulation
		device        string
		want          offloadrepair.Encapsulation
	}{
		{backend.Unencapsulated, "eth0", offloadrepair.Bare},
		{backend.WholeByKernel, "flannel.1", offloadrepair.ByKernel},
		{backend.WholeByKernel, "eth0", offloadrepair.Bare}, // DirectRouting
		{backend.SinglyByKernel, "flannel-wg", offloadrepair.Bare},
		{backend.SinglyByProcess, "flannel0", offloadrepair.ByProcess},
		{backend.JoinedByProcess, "flannel0", offloadrepair.ByProcess},
	} {
		o := &offloads{encapsulation: func() backend.Encapsulation { return tt.encapsulation }}
		if got := o.encapsulationBy(tt.device, "eth0"); got != tt.want {
			t.Errorf("%s with %v: %v, want %v", tt.device, tt.encapsulation, got, tt.want)
		}
	}
}

// Each data path has its encapsulation.
func TestEncapsulation(t *testing.T) {
	for _, tt := range []struct {
		backend, dataPath string
		want              map[string]backend.Encapsulation // by data path
	}{
		{`{"Type": "alloc"}`, "", map[string]backend.Encapsulation{"none": backend.Unencapsulated}},
		{`{"Type": "host-gw"}`, "", map[string]backend.Encapsulation{"routes": backend.Unencapsulated}},
		{`{"Type": "vxlan"}`, "", map[string]backend.Encapsulation{"vxlan": backend.WholeByKernel}},
		{`{"Type": "udp"}`, "plain", map[string]backend.Encapsulation{"plain": backend.SinglyByProcess}},
		{`{"Type": "udp"}`, "offload", map[string]backend.Encapsulation{"offload": backend.JoinedByProcess}},
		{`{"Type": "udp"}`, "kernel", map[string]backend.Encapsulation{"kernel": backend.WholeByKernel}},
		{`{"Type": "wireguard"}`, "", map[string]backend.Encapsulation{"kernel": backend.SinglyByKernel, "userspace": backend.JoinedByProcess}},
	} {
		t.Run(tt.backend+tt.dataPath, func(t *testing.T) {
			n := newDamagedHost(t, tt.backend, tt.dataPath, "").network
			want, known := tt.want[n.DataPath()]
			if got := n.Encapsulation(); !known || got != want {
				t.Errorf("%s: %v, want %v", n.DataPath(), got, want)
			}
		})
	}
}
