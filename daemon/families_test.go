package daemon

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
	"github.com/coreos/flannel/subnet/subnettest"
)

const rigDual = `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "Backend": {"Type": "alloc"}}`

// rigOneIPv6 is rigDual with one IPv6 subnet.
var rigOneIPv6 = strings.Replace(rigDual, "fd00:5::/48\"", `fd00:5::/48", "IPv6SubnetMin": "fd00:5:0:1::", "IPv6SubnetMax": "fd00:5:0:1::"`, 1)

var eth0v6 = uplink.Uplink{Index: 2, Name: "eth0", MTU: 1500, Addr: netip.MustParseAddr("2001:db8::10")}

// newDualRig returns the rig of a network of both families, on a host that has both.
func newDualRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.store.SetConfig([]byte(rigDual))
	r.findable(eth0v6)
	return r
}

// findable makes uplinks that the host has.
func (r *rig) findable(ups ...uplink.Uplink) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.others = make(map[inet.Family]uplink.Uplink)
	for _, up := range ups {
		r.others[inet.Of(up.Addr)] = up
	}
}

func (r *rig) problems() string {
	r.Helper()
	return strings.Join(r.reporter.full().FamilyProblems, "; ")
}

// IPv6 is turned on while the network runs, and off again: the host keeps its IPv4
// subnet and its peers, and gets an IPv6 subnet; subnet.env and the store have it.
func TestIPv6IntoARunningNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.findable(eth0v6)
		peer := netip.MustParsePrefix("10.5.200.0/24")
		r.addPeer(peer, "192.0.2.1")
		m := r.join()
		own := m.lease.Subnet
		s := r.supervise(m)
		first := r.network()
		for _, dual := range []bool{true, false} {
			config := rigConfig
			if dual {
				config = rigDual
			}
			r.store.SetConfig([]byte(config))
			time.Sleep(2 * time.Minute)
			second := r.network()
			if second == nil || second.lease.Subnet != own || second.lease.IPv6Subnet.IsValid() != dual || !second.has(peer) || !first.isClosed() {
				t.Fatalf("dual %v: the network is %+v, want one for %v with peer %v", dual, second, own, peer)
			}
			if second.kept != (fakeKept{first}) {
				t.Errorf("dual %v: the network before has left %v", dual, second.kept)
			}
			stored := r.stored(own)
			if stored.IPv6Subnet != second.lease.IPv6Subnet || stored.Attrs.PublicIPv6.IsValid() != dual {
				t.Errorf("dual %v: the store has %+v", dual, stored)
			}
			if env, err := subnetfile.Read(r.options.subnetFile); err != nil || env.Subnet != own || env.IPv6Subnet != second.lease.IPv6Subnet {
				t.Errorf("dual %v: subnet.env has %+v, %v", dual, env, err)
			}
			if got := r.problems(); got != "" || r.state.get().manager.Status().ConfigRefused != "" {
				t.Errorf("dual %v: %s", dual, got)
			}
			if len(r.store.Leases(t)) != 2 {
				t.Errorf("dual %v: the store has %v", dual, r.store.Leases(t))
			}
			first = second
		}
		s.end(t)
	})
}

// While a host waits for the IPv6 interface to turn IPv6 on, and while it makes the
// network for that, the status names the family. IPv4 goes on.
func TestStatusNamesTheAwaitedFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		s := r.supervise(m)
		r.network()
		r.store.SetConfig([]byte(rigDual))
		for began := time.Now(); r.problems() == "" && time.Since(began) < 2*time.Minute; {
			time.Sleep(secondPatience / 10)
		}
		if got := r.problems(); !strings.Contains(got, "waiting for the IPv6 interface to the other hosts: "+errUnusable.Error()) {
			t.Errorf("problems are %q", got)
		}
		if got := r.reporter.full().NotReady; len(got) > 0 {
			t.Errorf("not ready: %q", got)
		}
		time.Sleep(secondPatience)
		synctest.Wait()
		if got := r.noted(&r.upMeets); len(got) != 1 || !strings.Contains(got[0], "making the network anew: the network configuration is another: IPv6Network") {
			t.Errorf("during the change not ready: %q", got)
		}
		if got := r.reporter.full().NotReady; len(got) > 0 {
			t.Errorf("not ready: %q", got)
		}
		s.end(t)
	})
}

// A fault of IPv6 leaves a host its IPv4 subnet, and the status names it. The host
// takes its IPv6 subnet when the fault is over.
func TestFaultOfIPv6CostsNoIPv4(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(*rig)
		want  string
	}{
		"the backend refuses it": {func(r *rig) { r.refuseV6 = errUnusable }, errUnusable.Error()},
		"etcd's v2 API":          {func(r *rig) { r.options.store.API = store.API2 }, "etcd's v2 API holds IPv4 leases only"},
		"no subnet is free": {func(r *rig) {
			r.store.SetConfig([]byte(rigOneIPv6))
			r.store.Put("10.5.9.0-24&fd00:5:0:1::-64", []byte(`{"PublicIP":"192.0.2.9"}`), time.Hour)
		}, "no IPv6 subnet is free"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newDualRig(t)
				test.fault(r)
				m := r.join()
				if !m.lease.Subnet.IsValid() || m.lease.IPv6Subnet.IsValid() {
					t.Fatalf("joined with %v", m.lease)
				}
				s := r.supervise(m)
				n := r.network()
				if n == nil || n.lease.IPv6Subnet.IsValid() {
					t.Fatalf("the network is %+v", n)
				}
				if got := r.problems(); !strings.Contains(got, "this host carries no IPv6: ") || !strings.Contains(got, test.want) {
					t.Errorf("problems are %q, want %q", got, test.want)
				}
				if report := r.reporter.full(); len(report.NotReady) > 0 {
					t.Errorf("not ready: %v", report.NotReady)
				}
				s.end(t)
			})
		})
	}
}

// While neither family can be set up, as when the addresses of both are renumbered, IPv6
// is not at fault: the host keeps its IPv6 subnet.
func TestFaultOfBothFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDualRig(t)
		m := r.join()
		lease := m.lease
		s := r.supervise(m)
		r.network()
		r.fail(nil, errUnusable)
		r.uplinks <- eth1
		time.Sleep(10 * time.Second) // several attempts
		r.fail(nil, nil)
		time.Sleep(2 * time.Minute)
		if n := r.network(); n == nil || n.lease.Key() != lease.Key() {
			t.Errorf("the network is %+v, want the lease %v", n, lease)
		}
		if got := r.problems(); got != "" {
			t.Errorf("problems are %q", got)
		}
		s.end(t)
	})
}

// The addresses of both families change together: one network follows both changes.
func TestBothUplinksChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDualRig(t)
		r.supervise(r.join())
		r.network()
		renumbered := eth0v6
		renumbered.Addr = renumbered.Addr.Next()
		r.joiner.underlay.succeed = func(uplink.Choice, uplink.Uplink) (uplink.Uplink, error) { return renumbered, nil }
		r.uplinks <- eth1
		if n := r.network(); n == nil || n.lease.Attrs.PublicIPv6 != renumbered.Addr || n.lease.Attrs.PublicIP != eth1.Addr {
			t.Errorf("the network is %+v", n)
		}
	})
}

// A host without a free IPv6 subnet gets one when there is one. Its network goes on
// until then.
func TestMissingIPv6SubnetIsSought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.store.SetConfig([]byte(rigOneIPv6))
		const other = "10.5.9.0-24&fd00:5:0:1::-64"
		r.store.Put(other, []byte(`{"PublicIP":"192.0.2.9"}`), 0)
		r.findable(eth0v6)
		m := r.join()
		own := m.lease.Subnet
		s := r.supervise(m)
		first := r.network()
		time.Sleep(time.Hour)
		if n := r.network(); n != nil || first.isClosed() || !strings.Contains(r.problems(), "no IPv6 subnet is free") {
			t.Fatalf("the network is %+v, with the problems %q", n, r.problems())
		}
		if err := r.store.Delete(t.Context(), r.stored(netip.MustParsePrefix("10.5.9.0/24"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lackingMost * 2)
		n := r.network()
		if n == nil || n.lease.Subnet != own || n.lease.IPv6Subnet != netip.MustParsePrefix("fd00:5:0:1::/64") {
			t.Fatalf("the network is %+v", n)
		}
		if got := r.problems(); got != "" {
			t.Errorf("problems are %q", got)
		}
		s.end(t)
	})
}

// A start waits for IPv4 at first, then takes the family that is there; an uplink
// that appears later is used.
func TestUplinkOfEitherFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDualRig(t)
		eth0 := r.state.get().sides[inet.IPv4].uplink
		r.state.update(func(s *progress) { s.sides = [2]side{} })
		began := time.Now()
		if err := r.joiner.awaitUplink(t.Context()); err != nil || time.Since(began) != ipv4Patience {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		if got := r.state.get().outside(); !slices.Equal(got, []inet.Family{inet.IPv6}) {
			t.Fatalf("found %v", got)
		}
		m := r.join()
		if m.lease.Attrs.PublicIP.IsValid() || m.lease.Attrs.PublicIPv6 != eth0v6.Addr {
			t.Errorf("joined as %+v", m.lease)
		}
		s := r.supervise(m)
		r.network()
		r.findable(eth0v6, eth0)
		time.Sleep(10 * time.Second)
		if n := r.network(); n == nil || n.lease.Key() != m.lease.Key() {
			t.Fatalf("the network is %+v", n)
		}
		if got := r.stored(m.lease.Subnet).Attrs; got.PublicIP != eth0.Addr || got.PublicIPv6 != eth0v6.Addr {
			t.Errorf("the store has %+v", got)
		}
		s.end(t)
	})
}

// A host whose last network was one of IPv4 alone waits for IPv4: its checkpoint is of
// use then.
func TestUplinkOfAnIPv4Network(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.saveCheckpoint()
		eth0 := r.state.get().sides[inet.IPv4].uplink
		r.state.update(func(s *progress) { s.sides = [2]side{} })
		r.findable(eth0v6)
		time.AfterFunc(time.Minute, func() { r.findable(eth0v6, eth0) })
		if err := r.joiner.awaitUplink(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.store.SetDown(errUnusable)
		if m := r.join(); m.lease.Subnet != subnetOf(7) || m.lease.Attrs.PublicIP != eth0.Addr {
			t.Errorf("joined with %v", m.lease)
		}
	})
}

// A host that has got IPv6 goes on without it while its checkpoint has no subnet of it.
func TestCheckpointWithoutIPv6Subnet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.saveCheckpoint()
		c.Config = *subnettest.ParseConfig(t, rigDual)
		if err := r.checkpoints.save(c); err != nil {
			t.Fatal(err)
		}
		r.findable(eth0v6)
		r.store.SetDown(errUnusable)
		if m := r.join(); m.lease.Subnet != subnetOf(7) || m.lease.IPv6Subnet.IsValid() {
			t.Errorf("joined with %v", m.lease)
		}
		if got := r.problems(); !strings.Contains(got, "the lease of the last run has no subnet of it") {
			t.Errorf("problems are %q", got)
		}
	})
}

// Our IPv6 subnet is another host's: the host takes another one.
func TestLostIPv6PartIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDualRig(t)
		older := r.store.Copy()
		m := r.join()
		own := m.lease
		s := r.supervise(m)
		r.network()
		r.store.Restore(older)
		r.store.SetConfig([]byte(rigDual))
		r.store.Put("10.5.9.0-24&"+strings.Split(own.Key(), "&")[1], []byte(`{"PublicIP":"192.0.2.9","BackendType":"alloc"}`), time.Hour)
		time.Sleep(2 * time.Minute)
		n := r.network()
		if n == nil || n.lease.Subnet != own.Subnet || n.lease.IPv6Subnet == own.IPv6Subnet || !n.lease.IPv6Subnet.IsValid() {
			t.Fatalf("the network is %+v, had %v", n, own)
		}
		if !n.has(netip.MustParsePrefix("10.5.9.0/24")) || !n.has(own.IPv6Subnet) {
			t.Error("the other host is no peer")
		}
		s.end(t)
	})
}

// An IPv6-only network has hosts with IPv6 addresses alone.
func TestIPv6Only(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.SetConfig([]byte(`{"IPv6Network": "fd00:5::/48", "Backend": {"Type": "alloc"}}`))
		r := newRigAt(t, fake, "2001:db8::10")
		m := r.join()
		s := r.supervise(m)
		n := r.network()
		if n == nil || n.lease.Subnet.IsValid() || !n.lease.IPv6Subnet.IsValid() || !strings.HasPrefix(n.lease.Key(), "0.0.0.0-0&") {
			t.Fatalf("the network is %+v", n)
		}
		if env, err := subnetfile.Read(r.options.subnetFile); err != nil || env.Subnet.IsValid() || env.IPv6Subnet != n.lease.IPv6Subnet {
			t.Errorf("subnet.env has %+v, %v", env, err)
		}
		if line := r.reporter.statusLine(); !strings.HasPrefix(line, "subnet fd00:5:0:") {
			t.Errorf("status line %q", line)
		}
		s.end(t)
		r.saveCheckpoint()
		again := newRigAt(t, fake, "2001:db8::10")
		*again.checkpoints = *r.checkpoints
		if m := again.join(); m.lease.IPv6Subnet != n.lease.IPv6Subnet {
			t.Errorf("then got %v, had %v", m.lease, n.lease)
		}
	})
}

// Each family has its public IP, and its rule of masquerading: by default that of
// -ip-masq, for private networks.
func TestOptionsOfFamilies(t *testing.T) {
	o := parse(t, "-public-ipv6=2001:db8::1", "-public-ip=192.0.2.1", "-ip-masq-exclude=10.0.0.0/8, fd00::/8", "-ip-masq-exclude=192.0.2.0/24")
	if o.publicIPs[inet.IPv4] != netip.MustParseAddr("192.0.2.1") || o.publicIPs[inet.IPv6] != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("public IPs %v", o.publicIPs)
	}
	if got := fmt.Sprint(o.masqExclude); got != "[10.0.0.0/8 fd00::/8 192.0.2.0/24]" {
		t.Errorf("excluded: %s", got)
	}
	for _, args := range [][]string{{"-public-ipv6=192.0.2.1"}, {"-public-ip=2001:db8::1"}, {"-public-ipv6=ff02::1"}, {"-public-ipv6=::ffff:192.0.2.1"},
		{"-ip-masq-ipv6=yes"}, {"-ip-masq-exclude=10.0.0.0"}} {
		if _, err := ParseOptions(args, io.Discard); err == nil {
			t.Errorf("%q are accepted", args)
		}
	}
	v4, ula, global := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48"), netip.MustParsePrefix("2001:db8:5::/48")
	for _, test := range []struct {
		args            []string
		v4, ula, global bool
	}{
		{nil, false, false, false},
		{[]string{"-ip-masq"}, true, true, false},
		{[]string{"-ip-masq", "-ip-masq-ipv6=false"}, true, false, false},
		{[]string{"-ip-masq", "-ip-masq-ipv6=true"}, true, true, true},
		{[]string{"-ip-masq-ipv6=true"}, false, true, true},
	} {
		o := parse(t, test.args...)
		if o.masquerades(v4) != test.v4 || o.masquerades(ula) != test.ula || o.masquerades(global) != test.global {
			t.Errorf("%q: IPv4 %v, private IPv6 %v, global IPv6 %v", test.args, o.masquerades(v4), o.masquerades(ula), o.masquerades(global))
		}
	}
}

// Each family has a table, with the excluded destinations of that family. A lease that
// gets or loses its IPv6 part changes the tables. A failure of IPv6 does not end IPv4.
func TestFirewallOfFamilies(t *testing.T) {
	config, err := subnet.ParseConfig([]byte(rigDual))
	if err != nil {
		t.Fatal(err)
	}
	own := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.7.0/24"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:7::/64")}
	f := newFirewall(parse(t, "-ip-masq", "-ip-masq-exclude=192.0.2.0/24,2001:db8::/32"))
	var set []string
	f.set = func(r masq.Rules) error {
		set = append(set, fmt.Sprintf("%v %v %v", r.Network, r.Subnet, r.Exclude))
		if r.Network.Addr().Is6() {
			return errUnusable
		}
		return nil
	}
	for range 2 { // the second time nothing has changed
		if err := f.apply(config, own); err != nil {
			t.Errorf("apply: %v", err)
		}
	}
	want := []string{"10.5.0.0/16 10.5.7.0/24 [192.0.2.0/24]", "fd00:5::/48 fd00:5:0:7::/64 [2001:db8::/32]"}
	if !slices.Equal(set, want) {
		t.Errorf("set %q, want %q", set, want)
	}
	kept := make(chan string, 10)
	f.keep = func(ctx context.Context, r masq.Rules) error {
		kept <- r.Network.String()
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	if got := []string{<-kept, <-kept}; !slices.Contains(got, "10.5.0.0/16") || !slices.Contains(got, "fd00:5::/48") {
		t.Errorf("kept %q", got)
	}
	own.IPv6Subnet = netip.Prefix{}
	if err := f.apply(config, own); err != nil {
		t.Errorf("apply: %v", err)
	}
	if got := <-kept; got != "10.5.0.0/16" {
		t.Errorf("then kept %q", got)
	}
	cancel()
	if err := <-ended; err != nil || len(kept) > 0 {
		t.Errorf("Run: %v; kept %d more", err, len(kept))
	}
}
