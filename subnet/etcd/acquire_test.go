package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

func TestAcquire(t *testing.T) {
	for _, test := range []struct {
		name   string
		keys   map[string]string // key → public IP
		prev   netip.Prefix
		config string
		want   string // the subnet, or the only ones free
	}{
		{name: "random one that is free", config: twoLeft, keys: map[string]string{"10.5.1.0-24": "192.0.2.9"}, want: "10.5.2.0/24"},
		{name: "own lease before all else", config: network16, keys: map[string]string{"10.5.7.0-24": "192.0.2.1"}, prev: prefix("10.5.8.0/24"), want: "10.5.7.0/24"},
		{name: "previous subnet if free", config: network16, prev: prefix("10.5.8.0/24"), want: "10.5.8.0/24"},
		{name: "previous subnet is another's", config: twoLeft, keys: map[string]string{"10.5.1.0-24": "192.0.2.9"}, prev: prefix("10.5.1.0/24"), want: "10.5.2.0/24"},
		{name: "previous subnet of another Network", config: twoLeft, keys: map[string]string{"10.5.1.0-24": "192.0.2.9"}, prev: prefix("10.9.1.0/24"), want: "10.5.2.0/24"},
		{name: "a larger lease covers", config: `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.0.0", "SubnetMax": "10.5.8.0"}`,
			keys: map[string]string{"10.5.0.0-21": "192.0.2.9"}, want: "10.5.8.0/24"},
		{name: "a dual-stack host's lease covers", config: twoLeft, keys: map[string]string{"10.5.1.0-24&fd00::-64": "192.0.2.9"}, want: "10.5.2.0/24"},
		{name: "own dual-stack lease", config: twoLeft, keys: map[string]string{"10.5.1.0-24&fd00::-64": "192.0.2.1"}, want: "10.5.1.0/24"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				for key, ip := range test.keys {
					fake.Put(key, value(ip), time.Hour)
				}
				l, err := newManager(t, fake, test.config).Acquire(t.Context(), us, subnet.Hints{Previous: test.prev})
				if err != nil {
					t.Fatal(err)
				}
				if l.Subnet.String() != test.want {
					t.Errorf("got %v, want %s", l.Subnet, test.want)
				}
				if left := time.Until(l.Expiration); left != ttl {
					t.Errorf("the lease ends in %v, want %v", left, ttl)
				}
			})
		})
	}
}

// A lease of ours that the configuration no longer allows is removed. Such a
// reservation is the operator's and stays.
func TestAcquireAfterChangeOfConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.9.1.0-24", value("192.0.2.1"), time.Hour)
		fake.Put("10.9.2.0-24", value("192.0.2.1"), 0)
		l, err := newManager(t, fake, network16).Acquire(t.Context(), us, subnet.Hints{})
		if err != nil {
			t.Fatal(err)
		}
		if !prefix("10.5.0.0/16").Contains(l.Subnet.Addr()) {
			t.Errorf("got %v, which the configuration does not allow", l.Subnet)
		}
		var kept []string
		for _, other := range fake.Leases(t) {
			if other.Subnet != l.Subnet {
				kept = append(kept, other.Key())
			}
		}
		if fmt.Sprint(kept) != "[10.9.2.0-24]" {
			t.Errorf("kept %v, want the reservation alone", kept)
		}
	})
}

func TestAcquireReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.5.7.0-24", value("192.0.2.1"), 0)
		l, err := newManager(t, fake, network16).Acquire(t.Context(), us, subnet.Hints{})
		if err != nil || l.Subnet != prefix("10.5.7.0/24") || !l.Reserved {
			t.Fatalf("got %+v, %v; want the reserved subnet", l, err)
		}
		time.Sleep(10 * ttl) // of the bubble
		if got := fake.Leases(t); len(got) != 1 || !got[0].Reserved {
			t.Errorf("the reservation became %+v", got)
		}
	})
}

// If only reservations are left, the network is full for all hosts but those that
// the reservations are for.
func TestAcquireOnlyReservedLeft(t *testing.T) {
	for name, test := range map[string]struct {
		prev netip.Prefix
		who  string
		want string // "": full
	}{
		"another's":                  {who: "192.0.2.1"},
		"another's, asked for":       {prev: prefix("10.5.2.0/24"), who: "192.0.2.1"},
		"our own":                    {who: "192.0.2.9", want: "10.5.2.0/24"},
		"our own, another asked for": {prev: prefix("10.5.1.0/24"), who: "192.0.2.9", want: "10.5.2.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				fake.Put("10.5.1.0-24", value("192.0.2.8"), time.Hour)
				fake.Put("10.5.2.0-24", value("192.0.2.9"), 0)
				l, err := newManager(t, fake, twoLeft).Acquire(t.Context(), attrs(test.who), subnet.Hints{Previous: test.prev})
				switch {
				case test.want == "" && !errors.Is(err, subnet.ErrFull):
					t.Errorf("got %v, %v; want ErrFull", l, err)
				case test.want != "" && (err != nil || l.Subnet != prefix(test.want) || !l.Reserved):
					t.Errorf("got %v, %v; want the reservation %s", l, err, test.want)
				}
				for _, l := range fake.Leases(t) {
					if l.Subnet == prefix("10.5.2.0/24") && (!l.Reserved || l.Attrs.PublicIP != netip.MustParseAddr("192.0.2.9")) {
						t.Errorf("the reservation became %+v", l)
					}
				}
			})
		})
	}
}

// 200 hosts that start at once get 200 subnets.
func TestAcquireTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		const hosts = 200
		var wg sync.WaitGroup
		for i := range hosts {
			m := newManager(t, fake, network16)
			wg.Go(func() {
				if _, err := m.Acquire(t.Context(), attrs(fmt.Sprintf("192.0.2.%d", i+1)), subnet.Hints{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		owners := make(map[netip.Addr]netip.Prefix)
		for _, l := range fake.Leases(t) {
			owners[l.Attrs.PublicIP] = l.Subnet
		}
		if n := len(fake.Leases(t)); n != hosts || len(owners) != hosts {
			t.Errorf("%d leases of %d hosts, want %d of %d", n, len(owners), hosts, hosts)
		}
	})
}

// A key with a damaged value is occupied: Create fails with ErrExists, and Acquire
// must not choose it again.
func TestAcquireBesideBadValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.5.1.0-24", []byte("{"), time.Hour)
		fake.Put("10.5.2.0-24", []byte("{"), time.Hour)
		_, err := newManager(t, fake, twoLeft).Acquire(t.Context(), us, subnet.Hints{})
		if !errors.Is(err, subnet.ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
	})
}

// While the store fails, Acquire waits; a lost answer leaves no second lease.
func TestAcquireThroughFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		down := errors.New("store is down")
		fake.Inject(subnettest.OpList, subnettest.Fault{Err: down}, subnettest.Fault{Err: down})
		fake.Inject(subnettest.OpCreate, subnettest.Fault{Err: down}, subnettest.Fault{LostAck: down})
		l, err := newManager(t, fake, network16).Acquire(t.Context(), us, subnet.Hints{})
		if err != nil {
			t.Fatal(err)
		}
		if got := fake.Leases(t); len(got) != 1 || got[0].Subnet != l.Subnet {
			t.Errorf("acquired %v, the store has %+v", l.Subnet, got)
		}
	})
}

func TestAcquireHonoursContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.SetDown(errors.New("store is down"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := newManager(t, fake, network16).Acquire(ctx, us, subnet.Hints{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline's error", err)
		}
	})
}

var errDoubled = errors.New("two hosts hold overlapping subnets")

// Two hosts use different SubnetLens, and neither has seen the other's key before
// it creates its own. The second one yields, also if the answers to its Create,
// its verification and its Delete get lost.
func TestAcquireOneOwner(t *testing.T) {
	lost := subnettest.Fault{LostAck: errors.New("answer lost")}
	for name, inject := range map[string]func(fake *subnettest.Fake){
		"all answers arrive": func(*subnettest.Fake) {},
		"the answer to the verification is lost": func(fake *subnettest.Fake) {
			fake.Inject(subnettest.OpOverlapping, lost, lost)
			fake.Inject(subnettest.OpList, lost, lost)
		},
		"the answer to Delete is lost": func(fake *subnettest.Fake) { fake.Inject(subnettest.OpDelete, lost) },
		"Delete fails": func(fake *subnettest.Fake) {
			fake.Inject(subnettest.OpDelete, subnettest.Fault{Err: errors.New("down")})
		},
	} {
		for _, lostAck := range []error{nil, errors.New("answer lost")} {
			t.Run(fmt.Sprint(name, lostAck), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fake := subnettest.NewFake()
					entered, leave := make(chan struct{}), make(chan struct{})
					fake.Inject(subnettest.OpCreate, subnettest.Fault{Entered: entered, Wait: leave, LostAck: lostAck})
					second := make(chan error, 1)
					go func() {
						_, err := newManager(t, fake, `{"Network": "10.5.0.0/16", "SubnetLen": 20, "SubnetMin": "10.5.16.0", "SubnetMax": "10.5.16.0"}`).
							Acquire(t.Context(), attrs("192.0.2.2"), subnet.Hints{})
						second <- err
					}()
					<-entered
					first, err := newManager(t, fake, `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.17.0", "SubnetMax": "10.5.17.0"}`).
						Acquire(t.Context(), us, subnet.Hints{})
					if err != nil {
						t.Fatal(err)
					}
					inject(fake)
					close(leave)
					if err := <-second; !errors.Is(err, subnet.ErrFull) {
						t.Errorf("%v: the second got %v, want ErrFull", errDoubled, err)
					}
					if got := fake.Leases(t); len(got) != 1 || got[0].Subnet != first.Subnet {
						t.Errorf("%v: %v", errDoubled, got)
					}
				})
			})
		}
	}
}

// Another party changes our key between its creation and its verification. Then
// all leases are listed again, and decide.
func TestAcquireChangedBeforeVerify(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(fake *subnettest.Fake)
		want   string
	}{
		"deleted":        {func(fake *subnettest.Fake) { fake.Remove("10.5.17.0-24") }, "10.5.17.0/24"},
		"edited":         {func(fake *subnettest.Fake) { fake.Put("10.5.17.0-24", value("192.0.2.1"), time.Hour) }, "10.5.17.0/24"},
		"taken by other": {func(fake *subnettest.Fake) { fake.Put("10.5.17.0-24", value("192.0.2.2"), time.Hour) }, "10.5.18.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				entered, leave := make(chan struct{}), make(chan struct{})
				fake.Inject(subnettest.OpOverlapping, subnettest.Fault{Entered: entered, Wait: leave})
				go func() {
					<-entered
					tt.change(fake)
					close(leave)
				}()
				m := newManager(t, fake, `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.17.0", "SubnetMax": "10.5.18.0"}`)
				l, err := m.Acquire(t.Context(), us, subnet.Hints{Previous: prefix("10.5.17.0/24")})
				if err != nil || l.Subnet != prefix(tt.want) {
					t.Errorf("got %v, %v; want %s", l, err, tt.want)
				}
				owners := 0
				for _, l := range fake.Leases(t) {
					if l.Attrs.PublicIP == us.PublicIP {
						owners++
					}
				}
				if owners != 1 {
					t.Errorf("%d leases are ours, want one: %v", owners, fake.Leases(t))
				}
			})
		})
	}
}

// A lease that is younger than ours and overlaps it does not make us yield.
func TestAcquireFirstComeKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		entered, leave := make(chan struct{}), make(chan struct{})
		fake.Inject(subnettest.OpOverlapping, subnettest.Fault{Entered: entered, Wait: leave})
		go func() {
			<-entered // created, not verified yet
			fake.Put("10.5.0.0-17", value("192.0.2.2"), time.Hour)
			close(leave)
		}()
		m := newManager(t, fake, `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.17.0", "SubnetMax": "10.5.17.0"}`)
		if l, err := m.Acquire(t.Context(), us, subnet.Hints{}); err != nil || l.Subnet != prefix("10.5.17.0/24") {
			t.Errorf("got %v, %v; want the subnet that was ours first", l, err)
		}
	})
}

// StoreTimeout counts the time in which the store does not answer. The time that
// a challenged host has does not count.
func TestAcquireStoreTimeout(t *testing.T) {
	hints := subnet.Hints{StoreTimeout: 5 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.SetDown(errors.New("store is down"))
		began := time.Now()
		_, err := newManager(t, fake, network16).Acquire(t.Context(), us, hints)
		if took := time.Since(began); !errors.Is(err, subnet.ErrStoreTimeout) || took < 5*time.Second || took > 9*time.Second {
			t.Errorf("%v after %v, want ErrStoreTimeout after 5 s and a pause", err, took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		startNode(t, fake, node("192.0.2.1", "a")).End(t)
		l := fake.OnlyLease(t)
		challenged := l.Attrs
		challenged.Challenge = "of one that died over it"
		if _, err := fake.Update(t.Context(), l, challenged, ttl); err != nil {
			t.Fatal(err)
		}
		// An answer is lost at the end of the second challenge's wait.
		fake.Inject(subnettest.OpList, subnettest.Fault{}, subnettest.Fault{}, subnettest.Fault{Err: errors.New("connection reset")})
		began := time.Now()
		l, err := newManager(t, fake, network16).Acquire(t.Context(), node("192.0.2.1", "b"), hints)
		if took := time.Since(began); err != nil || took < 10*time.Second {
			t.Errorf("%v, %v after %v, want the lease after two claims' waits", l, err, took)
		}
	})
}

// A subnet that another host had is handed out last, also after its lease has
// ended.
func TestAcquireRememberedLast(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			fake := subnettest.NewFake()
			remembered := []netip.Prefix{prefix("10.5.1.0/24")}
			for i, want := range []string{"10.5.2.0/24", "10.5.1.0/24"} {
				l, err := newManager(t, fake, twoLeft).Acquire(t.Context(), attrs(fmt.Sprintf("192.0.2.%d", i+1)), subnet.Hints{Remembered: remembered})
				if err != nil || l.Subnet != prefix(want) {
					t.Errorf("host %d got %v, %v; want %s", i, l.Subnet, err, want)
				}
			}
		})
	}
}

// Of two overlapping leases, the one that was created first is valid, although it
// was written again between the other's creation and verification.
func TestAcquireOlderRewritten(t *testing.T) {
	for name, key := range map[string]string{"larger": "10.5.16.0-20", "dual-stack": "10.5.17.0-24&fd00:0:0:17::-64"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				listed, entered, leave := make(chan struct{}), make(chan struct{}), make(chan struct{})
				fake.Inject(subnettest.OpCreate, subnettest.Fault{Entered: listed, Wait: entered})
				fake.Inject(subnettest.OpOverlapping, subnettest.Fault{Wait: leave})
				go func() {
					<-listed
					fake.Put(key, value("192.0.2.2"), time.Hour)
					close(entered)
					synctest.Wait() // created, not verified yet
					fake.Put(key, []byte(`{"PublicIP":"192.0.2.2","BackendType":"vxlan"}`), time.Hour)
					close(leave)
				}()
				m := newManager(t, fake, `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.17.0", "SubnetMax": "10.5.17.0"}`)
				if _, err := m.Acquire(t.Context(), us, subnet.Hints{}); !errors.Is(err, subnet.ErrFull) {
					t.Errorf("%v: got %v, want ErrFull", errDoubled, err)
				}
				if l := fake.OnlyLease(t); l.Key() != key {
					t.Errorf("%v: %v", errDoubled, l)
				}
			})
		})
	}
}
