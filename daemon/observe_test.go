package daemon

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

func seen() status.Snapshot {
	return status.Snapshot{
		Store: status.Store{Reachable: true, Since: time.Unix(1, 0)},
		Lease: &status.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), ExpiresAt: time.Unix(1000, 0)},
	}
}

func TestChangesInWords(t *testing.T) {
	away := seen()
	away.Store.Reachable = false
	unready := seen()
	unready.NotReady = []string{"device"}
	renewed := seen()
	renewed.Lease = &status.Lease{Subnet: renewed.Lease.Subnet, ExpiresAt: time.Unix(2000, 0)}
	moved := seen()
	moved.Node = status.Node{PublicIP: netip.MustParseAddr("192.0.2.10"), Iface: "eth1", MTU: 1400}
	for _, tt := range []struct {
		before, now status.Snapshot
		want        []happening
	}{
		{seen(), seen(), nil},
		{seen(), moved, []happening{{"",
			"Other hosts are reached by interface eth1 with MTU 1400, and reach this one at 192.0.2.10."}}},
		{status.Snapshot{}, seen(), []happening{{"", "This host has the subnet 10.5.1.0/24."}}},
		{seen(), renewed, []happening{{"", "The lease of 10.5.1.0/24 is renewed, until 1 January 00:33 UTC."}}},
		{seen(), away, []happening{{"the store does not answer; packets go on", "The store does not answer; packets go on."}}},
		{away, seen(), []happening{{"the store answers again", "The store answers again."}}},
		{seen(), unready, []happening{{`not ready reason="device"`, "Not ready: device."}}},
		{unready, seen(), []happening{{"the network is complete", "The network is complete."}}},
	} {
		if got := changes(tt.before, tt.now); !slices.Equal(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestPeerChangesInWords(t *testing.T) {
	var d daemon
	prefix := func(i byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, i, 0}), 24) }
	look := func(want ...happening) {
		t.Helper()
		if got := d.peerChanges(nil); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	look()
	for i := range byte(7) {
		d.turnout.Note(prefix(i), true)
	}
	look(happening{"peers joined count=7 subnets=[10.5.0.0/24 10.5.1.0/24 10.5.2.0/24 10.5.3.0/24 10.5.4.0/24]",
		"7 peers joined: 10.5.0.0/24, 10.5.1.0/24, 10.5.2.0/24, 10.5.3.0/24, 10.5.4.0/24 and 2 more."})
	look()
	d.turnout.Note(prefix(1), false)
	d.turnout.Note(prefix(1), true) // was there before, and is
	d.turnout.Note(prefix(2), false)
	d.turnout.Note(prefix(9), true)
	d.turnout.Note(prefix(9), false)
	look(happening{"peers left count=1 subnets=[10.5.2.0/24]", "Peer 10.5.2.0/24 left."})
}

func TestRecorderTellsWhoComesAndGoes(t *testing.T) {
	d := New(parse(t), "test")
	rec := d.newRecorder(joined{config: &subnet.Config{}})
	a, b := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	tell := func(what subnet.EventType, p netip.Prefix) {
		rec.note([]subnet.Event{{Type: what, Lease: &subnet.Lease{Subnet: p}}})
	}
	for _, step := range []struct {
		what         subnet.EventType
		who          netip.Prefix
		joined, left []netip.Prefix
	}{
		{subnet.Added, a, []netip.Prefix{a}, nil},
		{subnet.Added, a, nil, nil}, // other attributes
		{subnet.Added, b, []netip.Prefix{b}, nil},
		{subnet.Removed, a, nil, []netip.Prefix{a}},
		{subnet.Removed, a, nil, nil}, // was not there
	} {
		tell(step.what, step.who)
		joined, left := d.turnout.Take()
		if !slices.Equal(joined, step.joined) || !slices.Equal(left, step.left) {
			t.Errorf("%v %v: joined %v, left %v", step.what, step.who, joined, left)
		}
	}
	if got := rec.subnets(); !slices.Equal(got, []netip.Prefix{b}) {
		t.Errorf("the peers are %v", got)
	}
}

// crowded is a network with so many peers that nobody shall ask for them without
// need.
type crowded struct {
	backend.Network
	asked, checked int
	differs        error
}

func (*crowded) DataPath() string { return "kernel" }

func (c *crowded) Stats() backend.Stats {
	c.asked++
	return backend.Stats{}
}

func (*crowded) MTU() int { return 1472 }

func (c *crowded) Check() error {
	c.checked++
	time.Sleep(20 * time.Millisecond) // as a comparison of 10,000 routes takes
	return c.differs
}

// What the daemon does all the time costs the same however many peers there are.
func TestIdleDaemonAsksForNoPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, network := New(parse(t), "test"), new(crowded)
		fake := subnettest.NewFake()
		m := fake.NewManager(&subnet.Config{}, time.Hour, subnet.Options{})
		m.Adopt(subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Expiration: time.Now().Add(time.Hour)}, nil)
		d.update(func(r *running) {
			r.uplink.Index, r.store.Source, r.manager, r.network, r.ready = 1, fake, m, network, true
			r.applied = true
			r.config = &subnet.Config{BackendType: "udp"}
		})
		// One after the other: to wait for a lock stops a bubble's clock.
		for _, run := range []func(context.Context) error{d.observe, d.attendSystemd} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := run(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}
		if got, want := d.condition(), "subnet 10.5.1.0/24, 0 peers, data path kernel"; got != want {
			t.Errorf("the condition is %q, want %q", got, want)
		}
		if network.checked != 1 {
			t.Errorf("compared with the kernel %d times in two minutes", network.checked)
		}
		if network.asked != 0 {
			t.Errorf("asked for the peers %d times in two minutes", network.asked)
		}
		if d.report(); network.asked != 1 {
			t.Error("a report does not ask for the peers") // and this test proves nothing
		}
	})
}
