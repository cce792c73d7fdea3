package daemon

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coreos/flannel/pkg/hostroute"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// A start that the host's own networks refuse names them, and leaves no lease.
func TestJoinBesideNetworksOfTheHost(t *testing.T) {
	docker0 := hostroute.Network{Prefix: netip.MustParsePrefix("10.5.0.0/16"), Addr: netip.MustParseAddr("10.5.0.1"), Dev: "docker0", Bridge: true}
	storage := hostroute.Network{Prefix: netip.MustParsePrefix("10.5.4.0/24"), Addr: netip.MustParseAddr("10.5.4.9"), Dev: "eth1"}
	ours := hostroute.Network{Prefix: netip.MustParsePrefix("10.5.5.0/24"), Addr: netip.MustParseAddr("10.5.5.1"), Dev: "cni0", Bridge: true}
	const two = `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.4.0", "SubnetMax": "10.5.5.0", "Backend": {"Type": "TYPE"}}`
	const one = `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.4.0", "SubnetMax": "10.5.4.0", "Backend": {"Type": "TYPE"}}`
	for _, test := range []struct {
		config, backend string
		host            hostroute.Network
		uplink          string
		want, err       string
	}{
		{config: two, backend: "udp", host: docker0, err: "10.5.0.1, the address of docker0"},
		{config: two, backend: "wireguard", host: docker0, err: "10.5.0.1, the address of docker0"},
		{config: two, backend: "vxlan", host: storage, want: "10.5.5.0/24"},
		{config: two, backend: "udp", host: storage, want: "10.5.5.0/24"},
		{config: two, backend: "alloc", host: ours, want: "10.5.4.0/24"},
		{config: one, backend: "host-gw", host: storage, err: "10.5.4.0/24 of eth1, which this host has already"},
		{config: one, backend: "host-gw", uplink: "10.5.4.7", err: "10.5.4.7/32 of eth0, which this host has already"},
	} {
		t.Run(test.backend+" "+test.want+test.err, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.store.SetConfig([]byte(strings.Replace(test.config, "TYPE", test.backend, 1)))
				if test.host.Prefix.IsValid() {
					r.host = append(r.host, test.host)
				}
				if test.uplink != "" {
					up := r.state.get().sides[inet.IPv4].uplink
					up.Addr = netip.MustParseAddr(test.uplink)
					r.joiner.underlay.set(up)
				}
				m, err := r.joiner.join(t.Context())
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), test.err) {
						t.Errorf("joined as %+v, %v; want %q", m, err, test.err)
					}
					if left := r.store.Leases(t); len(left) > 0 {
						t.Errorf("it left %v", left)
					}
					return
				}
				if err != nil || m.lease.Subnet.String() != test.want {
					t.Fatalf("joined as %+v, %v; want %s", m, err, test.want)
				}
			})
		})
	}
}

// The subnet of the last run stays this host's, whatever networks it has got since;
// the address that other hosts send to is the exception.
func TestJoinKeepsTheSubnetOfTheLastRun(t *testing.T) {
	for addr, keeps := range map[string]bool{"192.0.2.10": true, "10.5.7.9": false} {
		t.Run(addr, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRigAt(t, newRig(t).store, addr)
				last := r.saveCheckpoint().Lease.Subnet
				r.addPeer(last, addr)
				r.host = []hostroute.Network{{Prefix: netip.MustParsePrefix("10.5.0.0/18"), Addr: netip.MustParseAddr("10.5.0.1"), Dev: "br-compose", Bridge: true}}
				if m := r.join(); (m.lease.Subnet == last) != keeps || !keeps && r.host[0].Prefix.Contains(m.lease.Subnet.Addr()) {
					t.Errorf("joined as %v, had %v", m.lease.Subnet, last)
				}
				if left := r.store.Leases(t); len(left) != 1 {
					t.Errorf("the store has %+v", []subnet.Lease(left))
				}
			})
		})
	}
}
