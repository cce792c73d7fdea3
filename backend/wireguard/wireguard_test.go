package wireguard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

const psk = "ak4L9d0cCkrdWhPRJ5Y1U0r5QN1dZPQkBwJAlLM/d1o="

func config(t *testing.T, options string) backend.Config {
	return backend.Config{
		Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24, Options: json.RawMessage(options),
		Uplink:   uplink.Uplink{Name: netnstest.Uplink, MTU: 1500, Addr: netip.MustParseAddr("192.168.77.1")},
		PublicIP: netip.MustParseAddr("192.168.77.1"), RunDir: filepath.Join(t.TempDir(), "run"),
	}
}

func key(t *testing.T, text string) wgtypes.Key {
	t.Helper()
	k, err := wgtypes.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOptions(t *testing.T) {
	for text, want := range map[string]options{
		`{"Type": "wireguard"}`: {ListenPort: 51820, ListenPortV6: 51821, MTU: 1500, dataPath: "auto"},
		`{"listenport": 1, "mtu": 9000, "psk": "` + psk + `", "PersistentKeepaliveInterval": 25, "datapath": "userspace"}`: {
			ListenPort: 1, ListenPortV6: 51821, MTU: 9000, psk: key(t, psk), keepalive: 25 * time.Second, dataPath: "userspace"},
		`{"ListenPort": 0, "MTU": 0, "PSK": ""}`: {ListenPort: 51820, ListenPortV6: 51821, MTU: 1500, dataPath: "auto"},
	} {
		if got, err := parseOptions(config(t, text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{`{"PSK": "secret"}`, `{"PSK": 5}`, `{"ListenPort": "secret"}`, `["secret"]`, `{"MTU": 99}`, `{"Datapath": "x"}`} {
		if o, err := parseOptions(config(t, text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %+v, error %v", text, o, err)
		}
	}
}

// The flag -port is for one host, and wins over the configuration.
func TestPortFlag(t *testing.T) {
	c := config(t, `{"ListenPort": 1}`)
	c.Port = 9000
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if data := string(b.Attrs().BackendData); !strings.Contains(data, `"Port":9000}`) {
		t.Errorf("the lease has %s", data)
	}
}

func TestKeyFile(t *testing.T) {
	c := config(t, `{}`)
	first, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.RunDir, "wgkey")
	mode := func() os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if mode() != 0o400 {
		t.Errorf("mode %o", mode())
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := New(c)
	if err != nil || !again.Attrs().Equal(first.Attrs()) {
		t.Errorf("second time %+v, %v; first %+v", again.Attrs(), err, first.Attrs())
	}
	if mode() != 0o400 {
		t.Errorf("mode %o of a key that others could read", mode())
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("secret\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("damaged key: error %v", err)
	}
}

func TestAttrs(t *testing.T) {
	b, err := New(config(t, `{"ListenPort": 7}`))
	if err != nil {
		t.Fatal(err)
	}
	a := b.Attrs()
	var data leaseData
	if err := json.Unmarshal(a.BackendData, &data); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`{"PublicKey":%q,"Port":7}`, data.PublicKey); string(a.BackendData) != want || a.BackendType != "wireguard" || len(data.PublicKey) != 44 {
		t.Errorf("%+v, want data %s", a, want)
	}
}

func lease(p, host, key string, port int) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(p), Attrs: subnet.Attrs{
		PublicIP: netip.MustParseAddr(host), BackendType: Type, BackendData: fmt.Appendf(nil, `{"PublicKey":%q,"Port":%d}`, key, port),
	}}
}

func TestReadPeer(t *testing.T) {
	own := key(t, psk)
	const other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="
	at := end{port: DefaultPort, outer: []inet.Family{inet.IPv4}}
	parsePeer := func(l subnet.Lease, own wgtypes.Key) *peer { return parsePeer(subnet.Event{Lease: &l}, at, own) }
	if p := parsePeer(lease("10.5.2.0/24", "192.0.2.2", other, 0), own); p.problem != nil || p.port != 51820 {
		t.Errorf("%+v", p)
	}
	for _, l := range []subnet.Lease{
		lease("10.5.2.0/24", "192.0.2.2", psk, 1), lease("10.5.2.0/24", "192.0.2.2", "short", 1),
		lease("10.5.2.0/24", "192.0.2.2", other, 70000), {Subnet: netip.MustParsePrefix("10.5.2.0/24")},
	} {
		if p := parsePeer(l, own); p.problem == nil {
			t.Errorf("%+v is a peer", l)
		}
	}
}

// The changes make one set into another, without unchanged peers.
func TestDiffPeers(t *testing.T) {
	k := func(n byte) wgtypes.Key { return wgtypes.Key{n} }
	p := func(text string) []netip.Prefix {
		var all []netip.Prefix
		for s := range strings.FieldsSeq(text) {
			all = append(all, netip.MustParsePrefix(s))
		}
		return all
	}
	here, there := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	before := map[wgtypes.Key]peerConfig{
		k(1): {endpoint: here, allowed: p("10.5.1.0/24")},
		k(2): {endpoint: here, allowed: p("10.5.2.0/24")},
		k(3): {endpoint: here, allowed: p("10.5.3.0/24")},
		k(4): {endpoint: here, allowed: p("10.5.4.0/24")},
	}
	after := map[wgtypes.Key]peerConfig{
		k(1): {endpoint: here, allowed: p("10.5.1.0/24")},
		k(3): {endpoint: there, allowed: p("10.5.3.0/24")},
		k(4): {endpoint: here, allowed: p("10.5.4.0/24"), psk: k(9)},
		k(5): {endpoint: here, allowed: p("10.5.2.0/24 10.5.5.0/24")},
	}
	got := diffPeers(before, after)
	if len(got) != 4 || !got[3].Remove || got[3].PublicKey != k(2) {
		t.Fatalf("%+v, want three, then the removal", got)
	}
	var keys []byte
	for _, c := range got[:3] {
		keys = append(keys, c.PublicKey[0])
	}
	if slices.Sort(keys); !slices.Equal(keys, []byte{3, 4, 5}) {
		t.Errorf("changes of %v", keys)
	}
}

// A new key is added before its subnet moves. A key in use is not: that would take
// its subnets away.
func TestAddKeys(t *testing.T) {
	old, added, inUse := wgtypes.Key{1}, wgtypes.Key{2}, wgtypes.Key{3}
	n := &network{replaced: map[wgtypes.Key]wgtypes.Key{old: added, {4}: inUse, {5}: {6}}}
	subnets := []netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}
	before := map[wgtypes.Key]peerConfig{old: {allowed: subnets}, inUse: {}}
	after := map[wgtypes.Key]peerConfig{added: {allowed: subnets}, inUse: {}}
	got := n.addKeys(before, after)
	if len(got) != 1 || got[0].PublicKey != added || len(got[0].AllowedIPs) != 0 {
		t.Errorf("%+v, want the key %v without a subnet", got, added)
	}
}

// site is a host with a network and a container's address.
type site struct {
	*testing.T
	host    *netnstest.Host
	backend backend.Backend
	tunnels *tunnels
	network *network // of the first end
	lease   subnet.Lease
	addr    netip.Addr
}

func newSite(t *testing.T, lab *netnstest.Lab, n byte) *site {
	t.Helper()
	s := &site{T: t, host: lab.Host(string('a' + rune(n))), addr: netip.AddrFrom4([4]byte{10, 5, n, 1})}
	c := config(t, `{"Datapath": "userspace", "PSK": "`+psk+`"}`)
	c.PublicIP = s.host.Addr().Addr()
	b, err := New(c)
	s.check(err)
	s.backend, s.lease = b, subnet.Lease{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, n, 0}), 24), Attrs: b.Attrs()}
	s.up(nil)
	t.Cleanup(func() { s.check(s.network.Close()) })
	s.host.AddAddr("lo", netip.PrefixFrom(s.addr, 32)) // as a container's
	return s
}

// newSites returns three sites that have each other's leases.
func newSites(t *testing.T) (a, b, c *site) {
	t.Helper()
	lab := netnstest.New(t)
	a, b, c = newSite(t, lab, 0), newSite(t, lab, 1), newSite(t, lab, 2)
	a.apply(b.lease, c.lease)
	b.apply(a.lease, c.lease)
	c.apply(a.lease, b.lease)
	return a, b, c
}

// up sets the network up with what the one before has left; nil for nothing.
func (s *site) up(kept io.Closer) {
	s.Helper()
	s.check(s.host.Do(func() error {
		up, err := backend.UpWith(s.Context(), s.backend, s.lease, kept)
		if err == nil {
			s.tunnels = up.(*tunnels)
			s.network = s.tunnels.networks[0]
		}
		return err
	}))
}

// run runs the network until the returned function is called, or the test ends.
func (s *site) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	n := s.network
	go func() { done <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		s.check(<-done)
	})
	s.Cleanup(stop)
	return stop
}

func (s *site) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) apply(leases ...subnet.Lease) {
	var events []subnet.Event
	for _, l := range leases {
		events = append(events, subnet.Event{Type: subnet.Added, Lease: &l})
	}
	s.network.Apply(events)
}

func (s *site) ping(to *site, options ...string) string {
	s.Helper()
	args := append([]string{"-n", "-I", s.addr.String()}, append(options, to.addr.String())...)
	out, err := s.host.Command(context.Background(), "ping", args...).CombinedOutput()
	if err != nil {
		s.Fatalf("ping: %v\n%s", err, out)
	}
	return string(out)
}

// A device's peers are read back as they were set.
func TestPeersReadBack(t *testing.T) {
	netnstest.Require(t)
	s := newSite(t, netnstest.New(t), 1)
	const other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="
	s.apply(lease("10.5.2.0/24", "192.168.77.2", other, 9), lease("10.5.3.0/24", "192.168.77.2", other, 9),
		lease("10.5.4.0/24", "192.168.77.4", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=", 0))
	have, err := s.network.tunnel.peers()
	s.check(err)
	want := desiredPeers(s.network.peers, s.network.options)
	if got := decodeConfigs(have); !reflect.DeepEqual(got, want) || len(want) != 2 {
		t.Errorf("%+v, want %+v", got, want)
	}
	s.network.Apply([]subnet.Event{{Type: subnet.Removed, Lease: &subnet.Lease{Subnet: netip.MustParsePrefix("10.5.4.0/24")}}})
	have, err = s.network.tunnel.peers()
	if err != nil || len(have) != 1 {
		t.Errorf("%d peers, %v, after one of two was removed", len(have), err)
	}
}

// Three new keys in a row lose no packet between three hosts, even if one host
// reads each key later.
func TestRekey(t *testing.T) {
	netnstest.Require(t)
	a, b, c := newSites(t)
	for _, s := range []*site{a, b, c} {
		s.run()
	}
	a.awaitSessions(time.Time{}, b, c)
	b.awaitSessions(time.Time{}, c)
	a.ping(b, "-c", "1")
	a.ping(c, "-c", "1")
	b.ping(c, "-c", "1")

	var floods []*flood
	for _, way := range [][2]*site{{a, b}, {c, a}, {b, c}} {
		floods = append(floods, startFlood(t, way[0], way[1]))
	}
	before := a.network.key
	for range 3 {
		attrs, err := a.tunnels.Rekey()
		a.check(err)
		a.lease.Attrs = attrs
		a.ping(a, "-c", "2", "-i", "0.02") // some time passes
		b.apply(a.lease)
		a.ping(b, "-c", "1", "-W", "10")
		a.ping(a, "-c", "2", "-i", "0.02")
		c.apply(a.lease)
		c.ping(a, "-c", "1", "-W", "10")
	}
	for _, f := range floods {
		a.check(f.cmd.Wait())
		if text := f.out.String(); !strings.Contains(text, " 0% packet loss") {
			t.Errorf("packets were lost:\n%s", text[max(0, len(text)-300):])
		}
	}
	kept, err := loadKey(a.tunnels.runDir)
	if err != nil || kept == before || kept != a.network.key {
		t.Errorf("the key on disk is not the new one, %v", err)
	}
}

// refusing is a tunnel whose configure fails.
type refusing struct{ tunnel }

var errRefused = errors.New("refused")

func (refusing) configure(wgtypes.Config) error { return errRefused }

// If the tunnel refuses the new key, the network keeps the old one, as the lease
// does.
func TestRekeyRefused(t *testing.T) {
	before := key(t, psk)
	n := &network{key: before, tunnel: refusing{}}
	all := &tunnels{runDir: t.TempDir(), networks: []*network{n}}
	if _, err := all.Rekey(); !errors.Is(err, errRefused) {
		t.Errorf("error %v", err)
	}
	if n.key != before {
		t.Error("the key differs from the tunnel's")
	}
}

// flood is a ping each millisecond, 2,000 in all.
type flood struct {
	cmd *netnstest.Cmd
	out strings.Builder
}

func startFlood(t *testing.T, from, to *site) *flood {
	t.Helper()
	f := &flood{cmd: from.host.Command(t.Context(), "ping", "-n", "-q", "-I", from.addr.String(), "-i", "0.001", "-c", "2000", "-W", "10", to.addr.String())}
	f.cmd.Stdout = &f.out
	from.check(f.cmd.Start())
	return f
}

// A port in use is an error, and the network stays closed.
func TestPortInUse(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	taken, err := h.ListenPacket(t.Context(), "udp4", ":51820")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	b, err := New(config(t, `{"Datapath": "userspace"}`))
	if err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() error {
		_, err := b.Up(t.Context(), subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24")})
		return err
	})
	for _, want := range []string{"51820", "ss -ulpn", "Backend.ListenPort"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	out, err := h.Command(t.Context(), "ip", "route", "show", "10.5.0.0/16").Output()
	if err != nil || !strings.HasPrefix(string(out), "prohibit 10.5.0.0/16 ") {
		t.Errorf("route %q, %v", out, err)
	}
	if h.HasLink(netdev.WireGuard) {
		t.Error("the device is left behind")
	}
}
