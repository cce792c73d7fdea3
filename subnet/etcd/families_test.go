package etcd_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest"
)

const (
	dual16  = `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48"}`
	dualOne = `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "IPv6SubnetMin": "fd00:5:0:1::", "IPv6SubnetMax": "fd00:5:0:1::"}`
	dualTwo = `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "IPv6SubnetMin": "fd00:5:0:1::", "IPv6SubnetMax": "fd00:5:0:2::"}`
	onlyV6  = `{"IPv6Network": "fd00:5::/48"}`
)

// dualNode is a host with an address of each family.
func dualNode(ip, ipv6, id string) subnet.Attrs {
	a := node(ip, id)
	a.PublicIPv6 = netip.MustParseAddr(ipv6)
	return a
}

// acquire acquires a lease for a.
func acquire(t *testing.T, fake *subnettest.Fake, config string, a subnet.Attrs, h subnet.Hints) subnet.Lease {
	t.Helper()
	l, err := newManager(t, fake, config).Acquire(t.Context(), a, h)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A lease has a part of each family that the configuration enables and the host can
// use, in the range of that family.
func TestAcquireFamilies(t *testing.T) {
	for _, test := range []struct {
		name, config string
		without      []inet.Family
		want         []inet.Family
	}{
		{"both", dual16, nil, []inet.Family{inet.IPv4, inet.IPv6}},
		{"IPv6 alone", onlyV6, nil, []inet.Family{inet.IPv6}},
		{"a host without IPv6", dual16, []inet.Family{inet.IPv6}, []inet.Family{inet.IPv4}},
		{"a host without IPv4", dual16, []inet.Family{inet.IPv4}, []inet.Family{inet.IPv6}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				l := acquire(t, fake, test.config, dualNode("192.0.2.1", "2001:db8::1", "a"), subnet.Hints{Without: test.without})
				for _, f := range inet.Families {
					if p := l.SubnetOf(f); p.IsValid() != slices.Contains(test.want, f) || p.IsValid() && !parseConfig(t, test.config).RangeOf(f).Allows(p) {
						t.Errorf("got %v", l)
					}
				}
				if stored := fake.OnlyLease(t); !stored.StoredAs(l) {
					t.Errorf("the store has %v, want %v", stored, l)
				}
				if again := acquire(t, fake, test.config, dualNode("192.0.2.1", "2001:db8::1", "a"), subnet.Hints{Without: test.without}); again.Key() != l.Key() {
					t.Errorf("then got %v, had %v", again, l)
				}
			})
		})
	}
}

// Previous subnets of both families are preferred; each for itself.
func TestAcquirePreviousOfEachFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.5.7.0-24&fd00:5:0:77::-64", value("192.0.2.9"), time.Hour)
		l := acquire(t, fake, dual16, us, subnet.Hints{Previous: prefix("10.5.7.0/24"), PreviousIPv6: prefix("fd00:5:0:8::/64")})
		if l.Subnet == prefix("10.5.7.0/24") || l.IPv6Subnet != prefix("fd00:5:0:8::/64") {
			t.Errorf("got %v", l)
		}
	})
}

// IPv6 into a running network, and out of it: the host keeps its IPv4 subnet, and no
// peer loses it meanwhile.
func TestAcquireMovesLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		peer := startNode(t, fake, node("192.0.2.2", "peer"))
		a := dualNode("192.0.2.1", "2001:db8::1", "a")
		before := acquire(t, fake, network16, node("192.0.2.1", "a"), subnet.Hints{})
		both := acquire(t, fake, dual16, a, subnet.Hints{})
		if both.Subnet != before.Subnet || !both.IPv6Subnet.IsValid() {
			t.Fatalf("had %v, got %v", before, both)
		}
		time.Sleep(time.Minute)
		back := acquire(t, fake, network16, node("192.0.2.1", "a"), subnet.Hints{})
		if back.Subnet != before.Subnet || back.IPv6Subnet.IsValid() {
			t.Fatalf("had %v, got %v", both, back)
		}
		time.Sleep(time.Minute)
		if leases := fake.Leases(t); len(leases) != 2 {
			t.Errorf("the store has %v", leases)
		}
		told := 0
		for range len(peer.Events) {
			for _, e := range <-peer.Events {
				told++
				if e.Type == subnet.Removed || e.Subnet() != before.Subnet {
					t.Errorf("a peer was told of %v %v", e.Type, e.Subnet())
				}
			}
		}
		if told == 0 {
			t.Error("the peer was told of no lease")
		}
	})
}

// The answer to a move gets lost: the host finds its lease under the new key.
func TestAcquireAfterLostMove(t *testing.T) {
	for _, fault := range []subnettest.Fault{{LostAck: errors.New("cut off")}, {Err: errors.New("cut off")}} {
		synctest.Test(t, func(t *testing.T) {
			fake := subnettest.NewFake()
			before := acquire(t, fake, network16, us, subnet.Hints{})
			fake.Inject(subnettest.OpMove, fault)
			l := acquire(t, fake, dual16, us, subnet.Hints{})
			if stored := fake.OnlyLease(t); l.Subnet != before.Subnet || !l.IPv6Subnet.IsValid() || !stored.StoredAs(l) {
				t.Errorf("had %v, got %v, the store has %v", before, l, stored)
			}
		})
	}
}

// A reservation gets the part that it lacks, and stays without a TTL.
func TestAcquireMovesReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.5.7.0-24", value("192.0.2.1"), 0)
		l := acquire(t, fake, dual16, us, subnet.Hints{})
		if stored := fake.OnlyLease(t); l.Subnet != prefix("10.5.7.0/24") || !l.IPv6Subnet.IsValid() || !stored.Reserved || !l.Reserved {
			t.Errorf("got %+v, the store has %+v", l, stored)
		}
	})
}

// Without a free IPv6 subnet a host has its IPv4 subnet alone, and takes an IPv6
// subnet when one is free.
func TestAcquireWithFullIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.5.7.0-24&fd00:5:0:1::-64", value("192.0.2.9"), time.Hour)
		l := acquire(t, fake, dualOne, us, subnet.Hints{})
		if !l.Subnet.IsValid() || l.IPv6Subnet.IsValid() {
			t.Fatalf("got %v", l)
		}
		time.Sleep(2 * time.Hour)
		if now := acquire(t, fake, dualOne, us, subnet.Hints{}); now.Subnet != l.Subnet || now.IPv6Subnet != prefix("fd00:5:0:1::/64") {
			t.Errorf("then got %v", now)
		}
		_, err := newManager(t, fake, `{"IPv6Network": "fd00:5::/48", "IPv6SubnetMin": "fd00:5:0:1::", "IPv6SubnetMax": "fd00:5:0:1::"}`).
			Acquire(t.Context(), attrs("192.0.2.3"), subnet.Hints{})
		if !errors.Is(err, subnet.ErrFull) || !strings.Contains(err.Error(), "hand out more (IPv6SubnetMin, ") {
			t.Errorf("IPv6 alone: %v, want ErrFull", err)
		}
	})
}

// Another host's older lease has our IPv6 subnet: that part is given up, the IPv4
// subnet stays.
func TestIPv6PartIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.5.9.0-24&fd00:5:0:1::-64", value("192.0.2.9"), 1000*time.Hour)
		older := fake.Copy()
		fake.Remove("10.5.9.0-24&fd00:5:0:1::-64")
		m := newManager(t, fake, dualTwo)
		l, err := m.Acquire(t.Context(), us, subnet.Hints{PreviousIPv6: prefix("fd00:5:0:1::/64")})
		if err != nil || l.IPv6Subnet != prefix("fd00:5:0:1::/64") {
			t.Fatalf("got %v, %v", l, err)
		}
		h := subnettest.RunHost(t, fake, m, l)
		fake.Restore(older) // ours is gone with it
		fake.Put(l.Key(), value("192.0.2.1"), time.Hour)
		select {
		case err := <-h.Errs:
			if !errors.Is(err, subnet.ErrPartLost) {
				t.Fatalf("ended with %v, want ErrPartLost", err)
			}
		case <-time.After(ttl):
			t.Fatal("the lost part is not noticed")
		}
		h.Stop()
		if now := acquire(t, fake, dualTwo, us, subnet.Hints{}); now.Subnet != l.Subnet || now.IPv6Subnet != prefix("fd00:5:0:2::/64") {
			t.Errorf("then got %v, had %v", now, l)
		}
		if leases := fake.Leases(t); len(leases) != 2 {
			t.Errorf("the store has %v", leases)
		}
	})
}

// Two hosts that move at once choose the same IPv6 subnet: the later one takes
// another.
func TestAcquireMovesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		before := map[string]netip.Prefix{}
		for _, ip := range []string{"192.0.2.1", "192.0.2.2"} {
			before[ip] = acquire(t, fake, network16, attrs(ip), subnet.Hints{}).Subnet
		}
		leave := make(chan struct{})
		fake.Inject(subnettest.OpMove, subnettest.Fault{Wait: leave}, subnettest.Fault{Wait: leave})
		got := make(chan subnet.Lease, 2)
		for _, ip := range []string{"192.0.2.1", "192.0.2.2"} {
			go func() {
				l, err := newManager(t, fake, dualTwo).Acquire(t.Context(), attrs(ip), subnet.Hints{PreviousIPv6: prefix("fd00:5:0:1::/64")})
				if err != nil {
					t.Error(err)
				}
				got <- l
			}()
		}
		synctest.Wait()
		close(leave)
		one, two := <-got, <-got
		if one.Overlaps(two) || one.Subnet != before[one.Attrs.PublicIP.String()] || two.Subnet != before[two.Attrs.PublicIP.String()] {
			t.Errorf("got %v and %v, had %v", one, two, before)
		}
	})
}

// The IPv6 address identifies a host of an IPv6-only network.
func TestAcquireOnlyIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		v6 := func(ip string) subnet.Attrs { return subnet.Attrs{PublicIPv6: netip.MustParseAddr(ip)} }
		one := acquire(t, fake, onlyV6, v6("2001:db8::1"), subnet.Hints{})
		two := acquire(t, fake, onlyV6, v6("2001:db8::2"), subnet.Hints{})
		if one.Key() == two.Key() {
			t.Fatalf("both hosts have %v", one)
		}
		if again := acquire(t, fake, onlyV6, v6("2001:db8::1"), subnet.Hints{}); again.Key() != one.Key() {
			t.Errorf("then got %v, had %v", again, one)
		}
		m := newManager(t, fake, onlyV6)
		m.Adopt(one)
		h := subnettest.RunHost(t, fake, m, one)
		if events := <-h.Events; len(events) != 1 || events[0].Subnet() != two.IPv6Subnet || events[0].Lease.Attrs.PublicIPv6 != two.Attrs.PublicIPv6 {
			t.Errorf("told of %v", events)
		}
		h.End(t)
	})
}

// oneKeyAtATime is a store without Move.
type oneKeyAtATime struct{ *subnettest.Fake }

func (oneKeyAtATime) Move(context.Context, subnet.Lease, subnet.Lease, time.Duration) (subnet.Lease, error) {
	return subnet.Lease{}, errors.ErrUnsupported
}

// A store that cannot move a lease gets one attempt.
func TestAcquireWithoutMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, attrs := subnettest.NewFake(), dualNode("192.0.2.1", "2001:db8::1", "a")
		acquire(t, fake, dual16, attrs, subnet.Hints{Without: []inet.Family{inet.IPv6}})
		k := oneKeyAtATime{fake}
		h := etcd.NewHolder(k, parseConfig(t, dual16), time.Hour)
		began := time.Now()
		if l, err := h.Acquire(t.Context(), attrs, subnet.Hints{}, func(error) {}); !errors.Is(err, errors.ErrUnsupported) || time.Since(began) > 0 {
			t.Errorf("acquired %v, %v, after %v", l, err, time.Since(began))
		}
	})
}
