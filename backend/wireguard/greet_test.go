package wireguard

import (
	"context"
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

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet"
)

// meets waits until s and each of peers have a session with each other that was
// made after since; none of them has anything to send. A peer goes on with the
// session before until it has received something by the new one, which is later
// than s knows of it (section 5.4.5 of the paper).
func (s *site) meets(since time.Time, peers ...*site) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for _, p := range peers {
		for !s.session(p).After(since) || !p.session(s).After(since) {
			select {
			case <-again.C:
			case <-ctx.Done():
				s.Fatalf("since %v: host %s has a session with %s of %v, and that one of %v",
					since, s.host.Name(), p.host.Name(), s.session(p), p.session(s))
			}
		}
	}
}

// session is when the tunnel got its last session with peer's; zero: it has none.
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

// tunnelPeers are those of the tunnel.
func (s *site) tunnelPeers() []wgtypes.Peer {
	s.Helper()
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	peers, err := s.network.tunnel.peers()
	s.check(err)
	return peers
}

// A tunnel in user space knows no sessions after a restart, or when it was made
// anew, but its peers go on with those that they had. They are told at once,
// not when they have waited in vain for fifteen seconds.
func TestPeersHearOfANewTunnel(t *testing.T) {
	netnstest.Require(t)
	a, b, c := newSites(t)
	stop := a.run()
	a.meets(time.Time{}, b, c)
	b.ping(a, "-c", "1")
	c.ping(a, "-c", "1")

	stop()
	a.check(a.network.Close())
	gone := time.Now()
	a.up()
	a.learn(b.lease, c.lease)
	stop = a.run()
	a.meets(gone, b, c)
	b.ping(a, "-c", "1", "-W", "5") // one packet, which must not be lost
	c.ping(a, "-c", "1", "-W", "5")

	stop()
	a.check(a.network.Close())
	a.up()
	a.learn(b.lease, c.lease)
	a.network.greeter.take() // what follows is about the next tunnel
	out, err := a.host.Command(t.Context(), "ip", "link", "del", deviceName).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	gone = time.Now()
	a.check(a.host.Do(a.network.keeper.Sync)) // Run would do it in the network namespace of its goroutine
	a.run()
	a.meets(gone, b, c)
	b.ping(a, "-c", "1", "-W", "5")
	c.ping(a, "-c", "1", "-W", "5")
}

// WireGuard begins a session once in five seconds, whatever is asked of it, so
// that two hosts that began at once and got none begin at once again. Here a
// beginning is in vain as nobody hears it.
func TestBeginsAgain(t *testing.T) {
	netnstest.Require(t)
	lab := netnstest.New(t)
	a, b := newSite(t, lab, 0), newSite(t, lab, 1)
	b.learn(a.lease)
	public := b.network.key.PublicKey()
	a.learn(lease(b.lease.Subnet.String(), b.host.Addr().Addr().String(), public.String(), 1))
	sent := func(again bool) int {
		if n, err := a.network.begin([]wgtypes.Key{public}, again); n != 1 || err != nil {
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
		t.Error("it does not begin just once")
	}
	a.learn(b.lease)
	if sent(true) != 2*first {
		t.Error("it does not begin again")
	}
	a.meets(time.Time{}, b)
}

// Whatever leases come, change and go: the tunnel has what they say, and
// nothing else.
func TestRandomLeases(t *testing.T) {
	netnstest.Require(t)
	s := newSite(t, netnstest.New(t), 1)
	s.learn()
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
		s.learn(leases[dst])
	}
	// Keys that were replaced go a little later, when the new ones are greeted.
	s.check(s.network.retire(slices.Collect(maps.Values(s.network.retiring))))
	want := make(map[string]string) // subnet → key and endpoint
	for dst, l := range leases {
		p := read(l, wgtypes.Key{})
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

// The peers of a large network are not all greeted: most of them may be away.
func TestGreetingsAreBounded(t *testing.T) {
	n := &network{greeter: newGreeter(), peers: make(map[netip.Prefix]*peer)}
	greeted := func() (keys int) {
		n.greetAll()
		for _, b := range n.greeter.take() {
			keys += len(b.keys)
		}
		return keys
	}
	for i := range 3 * greetMost {
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		n.peers[dst] = &peer{subnet: dst, key: wgtypes.Key{1, byte(i >> 8), byte(i)}}
		if i != 2 {
			continue
		}
		if got := greeted(); got != 3 {
			t.Errorf("%d of 3 are greeted", got)
		}
	}
	if got := greeted(); got != greetMost {
		t.Errorf("%d are greeted, want %d", got, greetMost)
	}
}

// Of two hosts with new tunnels one begins, and the other only later.
func TestGreetingsDoNotMeet(t *testing.T) {
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
			n := &network{greeter: newGreeter(), key: keys[i], peers: map[netip.Prefix]*peer{dst: {subnet: dst, key: keys[1-i].PublicKey()}}}
			n.greetAll()
			for _, b := range n.greeter.take() {
				after[i] = b.after
			}
		}
		if min(after[0], after[1]) != 0 || max(after[0], after[1]) < greetPause {
			t.Fatalf("they begin after %v", after)
		}
	}
}
