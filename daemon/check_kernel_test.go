package daemon

import (
	"context"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// harm is a command that damages a host's network, one that repairs it, and the
// reason that /readyz must give in between.
type harm struct{ do, undo, reason string }

// The report names each difference, with every backend and data path. Nothing
// repairs them here: the networks do not run.
func TestReportNamesDifferences(t *testing.T) {
	device := func(name, addr string, more ...harm) []harm {
		return append([]harm{
			{"ip link set " + name + " mtu 900", "ip link set " + name + " mtu MTU", "device " + name + " has MTU 900"},
			{"ip addr add 10.5.99.9/32 dev " + name, "ip addr del 10.5.99.9/32 dev " + name, "device " + name + " has addresses"},
		}, append(more,
			harm{"ip addr del " + addr + " dev " + name, "", "device " + name + " has addresses []"}, // routes go with the last one
			harm{"ip link set " + name + " down", "", "device " + name + " is down"},
			harm{"ip link del " + name, "", "device " + name + " does not exist"})...)
	}
	tunnel := device("flannel0", "10.5.1.0/32",
		harm{"ip route del 10.5.0.0/16 dev flannel0", "ip route add 10.5.0.0/16 dev flannel0 proto 85", "the kernel lacks (1): route 10.5.0.0/16 dev flannel0"})
	for _, tt := range []struct {
		backend, dataPath, data string
		harms                   []harm
	}{
		{backend: `{"Type": "alloc"}`},
		{backend: `{"Type": "udp"}`, dataPath: "plain", harms: tunnel},
		{backend: `{"Type": "udp"}`, dataPath: "offload", harms: tunnel},
		{backend: `{"Type": "udp"}`, dataPath: "kernel", harms: tunnel},
		{backend: `{"Type": "vxlan"}`, data: `{"VNI": 1, "VtepMAC": "0e:00:00:00:00:02"}`, harms: device("flannel.1", "10.5.1.0/32",
			harm{"ip route del 10.5.2.0/24", "ip route add 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink proto 85", "the kernel lacks (1): route 10.5.2.0/24 via 10.5.2.0 dev flannel.1"},
			harm{"ip route add 10.5.3.0/24 via 10.5.3.0 dev flannel.1 onlink proto 85", "ip route del 10.5.3.0/24", "the kernel has too much (1): route 10.5.3.0/24"},
			harm{"ip neigh del 10.5.2.0 dev flannel.1", "ip neigh add 10.5.2.0 lladdr 0e:00:00:00:00:02 dev flannel.1", "the kernel lacks (1): neighbour 10.5.2.0"},
			harm{"bridge fdb del 0e:00:00:00:00:02 dev flannel.1 dst 192.168.77.2", "bridge fdb add 0e:00:00:00:00:02 dev flannel.1 dst 192.168.77.2", "the kernel lacks (1): forwarding entry 0e:00:00:00:00:02"},
			harm{"ip link set flannel.1 address 0e:00:00:00:00:09", "", "device flannel.1 has MAC 0e:00:00:00:00:09"})},
		{backend: `{"Type": "host-gw"}`, harms: []harm{
			{"ip route replace 10.5.2.0/24 via 192.168.77.9 proto 85", "ip route replace 10.5.2.0/24 via 192.168.77.2 proto 85", "the kernel lacks (1): route 10.5.2.0/24 via 192.168.77.2"},
			{"ip route replace 10.5.2.0/24 via 192.168.77.9", "ip route replace 10.5.2.0/24 via 192.168.77.2 proto 85", "the kernel has another program's route (1): 10.5.2.0/24"},
			{"ip route del 10.5.2.0/24", "", "the kernel lacks (1): route 10.5.2.0/24"}}},
		{backend: `{"Type": "wireguard"}`, data: `{"PublicKey": "ak4L9d0cCkrdWhPRJ5Y1U0r5QN1dZPQkBwJAlLM/d1o=", "Port": 51820}`, harms: device("flannel-wg", "10.5.1.0/32",
			harm{"ip route del 10.5.0.0/16 dev flannel-wg", "ip route add 10.5.0.0/16 dev flannel-wg proto 85", "the kernel lacks (1): route 10.5.0.0/16 dev flannel-wg"})},
	} {
		t.Run(strings.Join([]string{tt.backend, tt.dataPath}, ""), func(t *testing.T) {
			h := newDamagedHost(t, tt.backend, tt.dataPath, tt.data)
			h.expect("")
			for _, harm := range tt.harms {
				h.host.Exec(strings.ReplaceAll(harm.do, "MTU", h.mtu))
				h.expect(harm.reason)
				if harm.undo != "" {
					h.host.Exec(strings.ReplaceAll(harm.undo, "MTU", h.mtu))
					h.expect("")
				}
			}
		})
	}
}

// damagedHost is a host with a network that does not run, and with the peer
// 10.5.2.0/24 at 192.168.77.2.
type damagedHost struct {
	*testing.T
	host    *netnstest.Host
	network backend.Network
	mtu     string
}

func newDamagedHost(t *testing.T, kind, dataPath, data string) *damagedHost {
	t.Helper()
	netnstest.Require(t)
	h := &damagedHost{T: t, host: netnstest.New(t).Host("a")}
	o := &Options{dataPath: dataPath, stateDir: t.TempDir(), subnetFile: filepath.Join(t.TempDir(), "subnet.env")}
	config, err := subnet.ParseConfig([]byte(`{"Network": "10.5.0.0/16", "Backend": ` + kind + `}`))
	if err != nil {
		t.Fatal(err)
	}
	up := uplink.Uplink{Index: 2, Name: netnstest.Uplink, MTU: 1500, Addr: h.host.Addr().Addr()}
	err = h.host.Do(func() error {
		b, err := newBackend(o, config, progress{sides: [2]side{{uplink: up, publicIP: up.Addr}}}, nil)
		if err != nil {
			return err
		}
		lease := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Attrs: b.Attrs()}
		h.network, err = b.Up(t.Context(), lease)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.network.Close(); err != nil {
			t.Error(err)
		}
		if err := h.host.Do(func() error {
			return all.Remove(context.WithoutCancel(t.Context()), config.BackendType, config.Network)
		}); err != nil {
			t.Error(err)
		}
	})
	peer := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.2.0/24"), Attrs: subnet.Attrs{
		PublicIP: netip.MustParseAddr("192.168.77.2"), BackendType: config.BackendType, BackendData: json.RawMessage(data)}}
	h.inside(func() { h.network.Apply([]subnet.Event{{Type: subnet.Added, Lease: &peer}}) })
	if got := h.network.DataPath(); dataPath != "" && got != dataPath {
		t.Fatalf("data path %s, want %s", got, dataPath)
	}
	h.mtu = strconv.Itoa(h.network.MTU())
	return h
}

// inside calls f in the host's network namespace, as a daemon does: eBPF programs are
// attached by the index of an interface.
func (h *damagedHost) inside(f func()) {
	h.Helper()
	if err := h.host.Do(func() error { f(); return nil }); err != nil {
		h.Fatal(err)
	}
}

// expect checks that a difference with this prefix is found; "": none.
func (h *damagedHost) expect(want string) {
	h.Helper()
	var got []string
	h.inside(func() { got = new(checkCache).differences(h.network, pauseFactor) })
	if want == "" && len(got) > 0 || want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
		h.Errorf("not ready: %q, want %q", got, want)
	}
}
