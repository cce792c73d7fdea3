package daemon

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/offloadprobe"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
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
		want        []change
	}{
		{seen(), seen(), nil},
		{seen(), moved, []change{{"",
			"Other hosts are reached by interface eth1 with MTU 1400, and reach this one at 192.0.2.10."}}},
		{status.Snapshot{}, seen(), []change{{"", "This host has the subnet 10.5.1.0/24."}}},
		{seen(), renewed, []change{{"", "The lease of 10.5.1.0/24 is renewed, until 1 January 00:33 UTC."}}},
		{seen(), away, []change{{"the store does not answer; packets go on", "The store does not answer; packets go on."}}},
		{away, seen(), []change{{"the store answers again", "The store answers again."}}},
		{seen(), unready, []change{{`not ready reason="device"`, "Not ready: device."}}},
		{unready, seen(), []change{{"the network is complete", "The network is complete."}}},
	} {
		if got := changesBetween(tt.before, tt.now); !slices.Equal(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func subnetOf(i byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, i, 0}), 24)
}

func TestPeerChangesInWords(t *testing.T) {
	var o observer
	expect := func(want ...change) {
		t.Helper()
		if got := o.peerChanges(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	expect()
	for i := range byte(7) {
		o.peerJoined(subnetOf(i))
	}
	expect(change{"peers joined count=7 subnets=[10.5.0.0/24 10.5.1.0/24 10.5.2.0/24 10.5.3.0/24 10.5.4.0/24]",
		"7 peers joined: 10.5.0.0/24, 10.5.1.0/24, 10.5.2.0/24, 10.5.3.0/24, 10.5.4.0/24 and 2 more."})
	expect()
	o.peerLeft(subnetOf(1))
	o.peerJoined(subnetOf(1)) // is a peer as before
	o.peerLeft(subnetOf(2))
	o.peerJoined(subnetOf(9))
	o.peerLeft(subnetOf(9))
	expect(change{"peers left count=1 subnets=[10.5.2.0/24]", "Peer 10.5.2.0/24 left."})
	o.peerSilent(subnetOf(3), true)
	o.peerSilent(subnetOf(4), true)
	o.peerSilent(subnetOf(4), false)
	expect(change{"peers do not answer through the overlay count=1 subnets=[10.5.3.0/24]", "Peer 10.5.3.0/24 does not answer through the overlay."})
	o.peerSilent(subnetOf(3), false)
	o.peerSilent(subnetOf(5), true)
	o.peerLeft(subnetOf(5)) // its leaving is reported, its silence is not
	expect(change{"peers left count=1 subnets=[10.5.5.0/24]", "Peer 10.5.5.0/24 left."},
		change{"peers answer again count=1 subnets=[10.5.3.0/24]", "Peer 10.5.3.0/24 answers again."})
}

func TestTransitions(t *testing.T) {
	a, b := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	all := func(peers ...netip.Prefix) []netip.Prefix { return peers }
	var tr transitions
	for _, step := range []struct {
		name                string
		do                  func()
		wantTrue, wantFalse []netip.Prefix
	}{
		{"nothing", func() {}, nil, nil},
		{"one each", func() { tr.add(a, true); tr.add(b, false) }, all(a), all(b)},
		{"drained", func() {}, nil, nil},
		{"the same again", func() { tr.add(a, true); tr.add(a, true) }, all(a), nil},
		{"reversed", func() { tr.add(a, true); tr.add(a, false); tr.add(b, false); tr.add(b, true) }, nil, nil},
		{"reversed twice", func() { tr.add(a, false); tr.add(a, true); tr.add(a, false) }, nil, all(a)},
		{"removed", func() { tr.add(a, true); tr.add(b, true); tr.remove(a) }, all(b), nil},
	} {
		step.do()
		if yes, no := tr.drain(); !slices.Equal(yes, step.wantTrue) || !slices.Equal(no, step.wantFalse) {
			t.Errorf("%s: %v and %v, want %v and %v", step.name, yes, no, step.wantTrue, step.wantFalse)
		}
	}
}

// Run adds each change to the events of the status page.
func TestObserverAddsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- r.observer.Run(ctx) }()
		synctest.Wait()
		r.peers.apply([]subnet.Event{{Type: subnet.Added, Lease: &subnet.Lease{Subnet: subnetOf(7)}}})
		r.joiner.underlay.set(uplink.Uplink{Index: 3, Name: "eth1", MTU: 1400, Addr: netip.MustParseAddr("192.0.2.20")})
		time.Sleep(2 * observeInterval)
		var texts []string
		for _, e := range r.events.Recent() {
			texts = append(texts, e.Text)
		}
		want := []string{"Peer 10.5.7.0/24 joined.", "Other hosts are reached by interface eth1 with MTU 1400, and reach this one at 192.0.2.20."}
		if !slices.Equal(texts, want) {
			t.Errorf("the events are %q, want %q", texts, want)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// countingNetwork counts the calls whose cost grows with the number of peers.
type countingNetwork struct {
	backend.Network
	stats, checks int
}

func (*countingNetwork) DataPath() string { return "kernel" }

func (c *countingNetwork) Stats() backend.Stats {
	c.stats++
	return backend.Stats{}
}

func (*countingNetwork) MTU() int { return 1472 }

func (c *countingNetwork) Check() error {
	c.checks++
	time.Sleep(20 * time.Millisecond) // as a comparison of 10,000 routes takes
	return nil
}

// The daemon's periodic work costs the same however many peers there are.
func TestIdleDaemonReadsNoPeers(t *testing.T) {
	t.Setenv(notifyVariable, filepath.Join(t.TempDir(), "notify"))
	synctest.Test(t, func(t *testing.T) {
		r, network := newRig(t), new(countingNetwork)
		m := r.store.NewManager(&subnet.Config{}, rigTTL, subnet.Timing{})
		m.Adopt(subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Expiration: time.Now().Add(time.Hour)})
		r.state.update(func(s *progress) {
			s.store = store.New(r.store, "3")
			s.sides[inet.IPv4].uplink.Index, s.manager, s.network, s.ready = 1, m, network, true
			s.applied = true
			s.config = &subnet.Config{BackendType: "udp"}
		})
		systemd := newSystemd(r.reporter.statusLine, r.state.wasReady)
		systemd.notify = func(string) {}
		// One after the other: waiting for a lock stops a bubble's clock.
		for _, run := range []task{r.observer.Run, systemd.Run} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := run(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}
		if got, want := r.reporter.statusLine(), "subnet 10.5.1.0/24, 0 peers, data path kernel"; got != want {
			t.Errorf("the status line is %q, want %q", got, want)
		}
		if network.checks != 1 {
			t.Errorf("compared with the kernel %d times in two minutes", network.checks)
		}
		if network.stats != 0 {
			t.Errorf("read the peers %d times in two minutes", network.stats)
		}
		if r.reporter.full(); network.stats != 1 {
			t.Error("a full report does not read the peers") // and this test proves nothing
		}
	})
}

// A fault of an offload is one line for all peers that have it, and so is its end. A
// fault that comes and goes between two looks is none.
func TestOffloadChangesInWords(t *testing.T) {
	var o observer
	becomes := func(peer byte, inbound bool, was, now offloadprobe.Layer) {
		o.offloadChanged(offloadprobe.Change{Peer: subnetOf(peer), Inbound: inbound, Was: was, Now: now})
	}
	expect := func(want ...change) {
		t.Helper()
		got := o.peerChanges()
		slices.SortFunc(got, func(a, b change) int { return strings.Compare(a.sentence, b.sentence) })
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	becomes(1, false, "", offloadprobe.Checksum)
	becomes(2, false, "", offloadprobe.Checksum)
	becomes(1, true, "", offloadprobe.ReceiveMerging)
	becomes(3, false, "", offloadprobe.ECN)
	becomes(3, false, offloadprobe.ECN, "")
	expect(
		change{"peers have an offload fault, layer checksum, of packets to them count=2 subnets=[10.5.1.0/24 10.5.2.0/24]",
			"2 peers have an offload fault, layer checksum, of packets to them: 10.5.1.0/24, 10.5.2.0/24."},
		change{"peers have an offload fault, layer receive-merging, of packets from them count=1 subnets=[10.5.1.0/24]",
			"Peer 10.5.1.0/24 has an offload fault, layer receive-merging, of packets from it."})
	becomes(1, false, offloadprobe.Checksum, offloadprobe.PathMTU)
	becomes(2, false, offloadprobe.Checksum, "")
	o.peerLeft(subnetOf(2))
	expect(
		change{"peers have an offload fault, layer path-mtu, of packets to them count=1 subnets=[10.5.1.0/24]",
			"Peer 10.5.1.0/24 has an offload fault, layer path-mtu, of packets to it."},
		change{"peers no longer have the offload fault, layer checksum, of packets to them count=1 subnets=[10.5.1.0/24]",
			"Peer 10.5.1.0/24 no longer has the offload fault, layer checksum, of packets to it."},
		change{"peers left count=1 subnets=[10.5.2.0/24]", "Peer 10.5.2.0/24 left."})
	expect()
}
