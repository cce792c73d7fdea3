package udp

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet"
)

// Packets of each family stay in the kernel, in datagrams of each, as far as the
// programs take them. The others go by the path beneath, and the status has the reason.
func TestKernelFamilies(t *testing.T) {
	for _, m := range []mix{{both, "auto"}, {both, "ipv4"}, {both, "ipv6"}, {both[1:], "auto"}, {both[1:], "ipv4"}, {both[:1], "ipv6"}} {
		t.Run(m.String(), func(t *testing.T) {
			netnstest.Require(t)
			mixed, err := bpf.UnwrapsMixed()
			if err != nil {
				t.Fatal(err)
			}
			if mixedOnly := len(m.inside) == 1 && m.mode != "auto"; mixedOnly && !mixed {
				netnstest.MixedDecap.Skip(t, "the programs have nothing to do")
			}
			a, b := dualCluster(t, [2]string{kernelName, kernelName}, m)
			taken, left, err := kernelPairs(a.network.Config, a.network.outer)
			if err != nil {
				t.Fatal(err)
			}
			for from, to := range map[*node]*node{a: b, b: a} {
				l := to.lease
				l.Attrs.DataPath, l.Attrs.DataPathPairs = kernelName, taken.String()
				from.apply(l)
			}
			for _, f := range m.inside {
				way := pair{f, a.network.table.peerOf(b.lease.SubnetOf(f)).outer}
				before := a.readByDevice()
				ping(t, a, b, f, 56)
				ping(t, b, a, f, a.network.MTU()-f.HeaderLen()-8)
				ping(t, a, b, f, 5000)
				bulk(t, a, b, f)
				read := a.readByDevice() - before
				if inKernel := slices.Contains(taken, way); inKernel != (read < 10) { // the host's own multicast
					t.Errorf("%v: the device's reader got %d packets; in the kernel: %v", way, read, inKernel)
				}
			}
			for _, n := range []*node{a, b} {
				s := n.network.Stats()
				for reason, count := range s.Drops {
					if count != 0 && reason != "malformed" && reason != "no_route" {
						t.Errorf("%s: %d packets dropped: %s", n.Name(), count, reason)
					}
				}
				if has := strings.Contains(s.Reason, "by offload, since"); has != (left != nil) {
					t.Errorf("%s: %v are left, and the reason is %q", n.Name(), left, s.Reason)
				}
				for _, p := range s.Peers {
					if p.TxPackets < 100 || p.RxPackets < 100 {
						t.Errorf("%s: peer %+v", n.Name(), p)
					}
				}
				if err := n.Do(n.network.Check); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// readByDevice is the number of packets that the device's reader got. The device does not
// count those of the programs.
func (n *node) readByDevice() uint64 {
	l, err := n.Netlink().LinkByName(n.network.path.deviceName())
	if err != nil {
		return 0
	}
	return l.Attrs().Statistics.TxPackets
}

// The programs of a lease take IPv4 in IPv4, and the pairs that the lease lists.
func TestPairsOfLeases(t *testing.T) {
	all := pairs{{inet.IPv4, inet.IPv4}, {inet.IPv4, inet.IPv6}, {inet.IPv6, inet.IPv4}, {inet.IPv6, inet.IPv6}}
	for text, want := range map[string]pairs{"": all[:1], "6in4": {all[0], all[2]}, "6in6,4in6": {all[0], all[1], all[3]}, "16in4": all[:1]} {
		for _, p := range all {
			l := subnet.Attrs{Extras: subnet.Extras{DataPath: kernelName, DataPathPairs: text}}
			if got := p.takenBy(l); got != slices.Contains(want, p) {
				t.Errorf("%q takes %v: %v", text, p, got)
			}
			l.DataPath = ""
			if p.takenBy(l) {
				t.Errorf("a host without programs takes %v", p)
			}
		}
	}
	if got := all.String(); got != "4in6,6in4,6in6" {
		t.Errorf("the lease has %q", got)
	}
}

// A rule of the host for datagrams of IPv6 suspends the programs.
func TestKernelHeedsIPv6Rules(t *testing.T) {
	a, b := dualCluster(t, [2]string{kernelName, kernelName}, mix{both, "auto"})
	is := func(want string) {
		t.Helper()
		netnstest.Eventually(t, "data path "+want, func() error {
			if got := a.network.DataPath(); got != want {
				return fmt.Errorf("it is %s: %s", got, a.network.Stats().Reason)
			}
			return nil
		})
		for _, f := range both {
			ping(t, a, b, f, 1000)
		}
	}
	is(kernelName)
	a.Exec("nft add table ip6 f")
	a.Exec("nft add chain ip6 f out { type filter hook output priority 0; }")
	a.Exec("nft add rule ip6 f out ip6 daddr " + b.IPv6Addr().Addr().String() + " counter meta mark set 7")
	is(offloadName)
}
