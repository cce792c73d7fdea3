package wireguard

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/subnet"
)

// awaitSessions waits until s and each of peers have a session with each other that
// began after since. Nothing else sends packets meanwhile. The responder uses its old session
// until the first packet of the new one arrives, later than s knows of it (section
// 5.4.5 of the paper).
func (s *site) awaitSessions(since time.Time, peers ...*site) {
	s.Helper()
	for _, p := range peers {
		netnstest.Eventually(s, fmt.Sprintf("sessions of %s and %s since %v", s.host.Name(), p.host.Name(), since), func() error {
			if ours, theirs := s.session(p), p.session(s); !ours.After(since) || !theirs.After(since) {
				return fmt.Errorf("they are of %v and %v", ours, theirs)
			}
			return nil
		})
	}
}

// session returns the time of the last handshake with peer; zero: none.
func (s *site) session(peer *site) time.Time {
	s.Helper()
	key := peer.network.key.PublicKey()
	for _, p := range s.tunnelPeers() {
		if p.PublicKey == key {
			return p.LastHandshakeTime
		}
	}
	return time.Time{}
}

// tunnelPeers returns the tunnel's peers.
func (s *site) tunnelPeers() []wgtypes.Peer {
	s.Helper()
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	peers, err := s.network.tunnel.peers()
	s.check(err)
	return peers
}

// A new tunnel in user space has no sessions, but its peers still use their old ones.
// It initiates handshakes at once, so that the peers need not wait 15 s.
func TestNewTunnelInitiatesHandshakes(t *testing.T) {
	netnstest.Require(t)
	a, b, c := newSites(t)
	stop := a.run()
	a.awaitSessions(time.Time{}, b, c)
	b.ping(a, "-c", "1")
	c.ping(a, "-c", "1")

	stop()
	a.check(a.network.Close())
	since := time.Now()
	a.up(nil)
	a.apply(b.lease, c.lease)
	stop = a.run()
	a.awaitSessions(since, b, c)
	b.ping(a, "-c", "1", "-W", "5") // a single packet
	c.ping(a, "-c", "1", "-W", "5")

	stop()
	a.check(a.network.Close())
	a.up(nil)
	a.apply(b.lease, c.lease)
	a.network.dequeue() // only the next tunnel matters below
	out, err := a.host.Command(t.Context(), "ip", "link", "del", netdev.WireGuard).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	since = time.Now()
	a.check(a.host.Do(a.network.open)) // Run would do it in the network namespace of its goroutine
	a.run()
	a.awaitSessions(since, b, c)
	b.ping(a, "-c", "1", "-W", "5")
	c.ping(a, "-c", "1", "-W", "5")
}

// WireGuard initiates once in 5 s, so two hosts whose initiations collided would
// collide again; force overrides that. Here no peer receives the initiation.
func TestForcedInitiation(t *testing.T) {
	netnstest.Require(t)
	lab := netnstest.New(t)
	a, b := newSite(t, lab, 0), newSite(t, lab, 1)
	b.apply(a.lease)
	public := b.network.key.PublicKey()
	a.apply(lease(b.lease.Subnet.String(), b.host.Addr().Addr().String(), public.String(), 1))
	sent := func(force bool) int {
		if n, err := a.network.initiate([]wgtypes.Key{public}, force); n != 1 || err != nil {
			t.Fatalf("%d peers without a session, error %v", n, err)
		}
		state, err := a.network.tunnel.(*userspaceTunnel).device.IpcGet()
		a.check(err)
		_, bytes, _ := strings.Cut(state, "tx_bytes=")
		n, err := strconv.Atoi(bytes[:strings.IndexByte(bytes, '\n')])
		a.check(err)
		return n
	}
	first := sent(false)
	if first == 0 || sent(false) != first {
		t.Error("unforced initiations are not limited to one")
	}
	a.apply(b.lease)
	// More bytes follow as soon as b has answered.
	if sent(true) < 2*first {
		t.Error("a forced initiation was not sent")
	}
	a.awaitSessions(time.Time{}, b)
}

// The tunnel has exactly the leases' peers after random additions, changes and
// removals.
func TestRandomLeases(t *testing.T) {
	netnstest.Require(t)
	s := newSite(t, netnstest.New(t), 1)
	s.apply()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	leases := make(map[netip.Prefix]subnet.Lease)
	for range 300 {
		text := fmt.Sprintf("10.5.%d.0/24", 2+random.IntN(20))
		dst := netip.MustParsePrefix(text)
		if _, held := leases[dst]; held && random.IntN(3) == 0 {
			delete(leases, dst)
			s.network.Apply([]subnet.Event{{Type: subnet.Removed, Lease: &subnet.Lease{Subnet: dst}}})
			continue
		}
		n := random.IntN(30) // a host, which may have several subnets
		leases[dst] = lease(text, fmt.Sprintf("192.168.77.%d", 100+n), wgtypes.Key{1, byte(n)}.String(), 50000+n)
		s.apply(leases[dst])
	}
	// Replaced keys stay until the handshake with the new ones.
	s.check(s.network.dropOldKeys(slices.Collect(maps.Values(s.network.replaced))))
	want := make(map[string]string) // subnet → key and endpoint
	for dst, l := range leases {
		p := parsePeer(subnet.Event{Lease: &l}, s.network.end, wgtypes.Key{})
		want[dst.String()] = fmt.Sprintf("%v %v", p.key, netip.AddrPortFrom(p.publicIP, uint16(p.port)))
	}
	have := make(map[string]string)
	for _, p := range s.tunnelPeers() {
		if len(p.AllowedIPs) == 0 {
			t.Errorf("peer %v has no subnet", p.PublicKey)
		}
		for _, n := range p.AllowedIPs {
			have[n.String()] = fmt.Sprintf("%v %v", p.PublicKey, p.Endpoint)
		}
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("the tunnel has %v\nthe leases say %v", have, want)
	}
}

// A new tunnel does not initiate with all peers of a large network: most may be
// absent.
func TestHandshakesAreBounded(t *testing.T) {
	n := &network{handshakesDue: reconcile.NewSignal(), peers: make(map[netip.Prefix]*peer)}
	queued := func() (keys int) {
		n.handshakeAll()
		for _, b := range n.dequeue() {
			keys += len(b.keys)
		}
		return keys
	}
	for i := range 3 * maxHandshakes {
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		n.peers[dst] = &peer{subnet: dst, key: wgtypes.Key{1, byte(i >> 8), byte(i)}}
		if i != 2 {
			continue
		}
		if got := queued(); got != 3 {
			t.Errorf("%d of 3 peers are queued", got)
		}
	}
	if got := queued(); got != maxHandshakes {
		t.Errorf("%d peers are queued, want %d", got, maxHandshakes)
	}
}

// Of two hosts with new tunnels one initiates at once, the other later.
func TestHandshakesDoNotCross(t *testing.T) {
	for range 20 {
		var keys [2]wgtypes.Key
		for i := range keys {
			k, err := wgtypes.GeneratePrivateKey()
			if err != nil {
				t.Fatal(err)
			}
			keys[i] = k
		}
		var after [2]time.Duration
		for i := range keys {
			dst := netip.MustParsePrefix("10.5.1.0/24")
			n := &network{handshakesDue: reconcile.NewSignal(), key: keys[i], peers: map[netip.Prefix]*peer{dst: {subnet: dst, key: keys[1-i].PublicKey()}}}
			n.handshakeAll()
			for _, b := range n.dequeue() {
				after[i] = b.after
			}
		}
		if min(after[0], after[1]) != 0 || max(after[0], after[1]) < handshakeRetry {
			t.Fatalf("they initiate after %v", after)
		}
	}
}
