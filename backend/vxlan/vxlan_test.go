package vxlan

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/nodeid"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

func config(t *testing.T, options string) backend.Config {
	return backend.Config{
		Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24, Options: json.RawMessage(options),
		Uplink:   uplink.Uplink{Index: 2, Name: netnstest.Uplink, MTU: 1500, Addr: netip.MustParseAddr("192.168.77.1")},
		PublicIP: netip.MustParseAddr("192.168.77.1"), StateDir: t.TempDir(),
	}
}

func TestOptions(t *testing.T) {
	for text, want := range map[string]options{
		`{"Type": "vxlan"}`:                   {VNI: 1, Port: 8472},
		`{"VNI": 0, "Port": 0, "MTU": 0}`:     {VNI: 0, Port: 8472},
		`{"vni": 16777215, "PORT": 4789}`:     {VNI: 16777215, Port: 4789},
		`{"MTU": 9000, "DirectRouting":true}`: {VNI: 1, Port: 8472, MTU: 9000, DirectRouting: true},
		`{"GBP": true, "Learning": true}`:     {VNI: 1, Port: 8472, GBP: true, Learning: true},
	} {
		if got, err := parseOptions(config(t, text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`{"VNI": 16777216}`: "VNI 16777216", `{"VNI": -1}`: "-1", `{"Port": 65536}`: "Port 65536", `{"Port": -1}`: "Port -1",
		`{"MTU": 100}`: "MTU 100", `{"MTU": -5}`: "MTU -5", `{"MTU": 65536}`: "MTU 65536", `{"GBP": "yes"}`: "GBP",
	} {
		if _, err := New(config(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
	c := config(t, `{"Port": 4789}`)
	c.Port = 9000
	if got, err := parseOptions(c); err != nil || got.Port != 9000 {
		t.Errorf("-port=9000: %+v, %v", got, err)
	}
}

// A network of both families can be checked before the interface for IPv6 is known, as
// that of -network is.
func TestUnknownUplink(t *testing.T) {
	for text, want := range map[string]string{`{}`: "", `{"MTU": 1350}`: "", `{"MTU": 1349}`: "MTU 1349"} {
		c := config(t, text)
		c.IPv6Network, c.IPv6SubnetLen = netip.MustParsePrefix("fd00:5::/48"), 64
		_, err := New(c)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

// A host that has a lease in the store keeps its MAC, whatever its node id is.
func TestKnownMAC(t *testing.T) {
	c := config(t, `{"VNI": 1}`)
	c.Previous.BackendData = json.RawMessage(`{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`)
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if have := string(b.Attrs().BackendData); have != string(c.Previous.BackendData) {
		t.Errorf("backend data %s, want the MAC of the lease %s", have, c.Previous.BackendData)
	}
	for _, damaged := range []string{"", "null", "{", `{"VtepMAC":"x"}`, `{"VtepMAC":"01:00:5e:00:00:01"}`} {
		c.Previous.BackendData = json.RawMessage(damaged)
		if _, err := New(c); err != nil {
			t.Errorf("previous data %q: %v", damaged, err)
		}
	}
}

// A device that another release of flannel has left keeps its MAC.
func TestMACOfDeviceStays(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	const mac = "c6:d2:32:6f:8f:44"
	h.Exec(fmt.Sprintf("ip link add flannel.1 address %s type vxlan id 1 dstport 8472 nolearning local %v dev eth0", mac, h.Addr().Addr()))
	var have string
	err := h.Do(func() error {
		b, err := New(config(t, `{}`))
		if err == nil {
			have = string(b.Attrs().BackendData)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"VNI":1,"VtepMAC":"` + mac + `"}`; have != want {
		t.Errorf("backend data %s, want the MAC of the device: %s", have, want)
	}
}

// The MAC is the node id's for ever: a change of this would make peers lose us.
func TestMAC(t *testing.T) {
	if got := macOf(nodeid.ID{1, 2, 3}, inet.IPv4).String(); got != "a2:76:90:3b:ce:23" {
		t.Errorf("MAC of a known node id is %s", got)
	}
	for i := range 256 {
		if mac := macOf(nodeid.ID{byte(i)}, inet.IPv4); mac[0]&3 != 2 {
			t.Fatalf("%v is not a local unicast address", mac)
		}
	}
}

func TestAttrs(t *testing.T) {
	c := config(t, `{"VNI": 5}`)
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	id, err := nodeid.Load(c.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"VNI":5,"VtepMAC":"%v"}`, macOf(id, inet.IPv4))
	if got := b.Attrs(); string(got.BackendData) != want || got.BackendType != "vxlan" || got.PublicIP != c.PublicIP {
		t.Errorf("%+v, want data %s", got, want)
	}
}

func TestFaultyReleases(t *testing.T) {
	for release, want := range map[string]bool{
		"3.10.0-1160.el7": true, "4.19.0": true, "5.4.0-150-generic": true, "5.7.19": true,
		"5.8.0": false, "5.10.0-28-amd64": false, "6.18.44": false, "10.0": false, "": false, "new": false,
	} {
		if got := faultyRelease(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

// rig is a network at work on a host of its own.
type rig struct {
	*testing.T
	host    *netnstest.Host
	network *network
}

func newRig(t *testing.T) *rig {
	netnstest.Require(t)
	r := &rig{T: t, host: netnstest.New(t).Host("a")}
	c := config(t, `{}`)
	b, err := New(c)
	r.check(err)
	r.check(r.host.Do(func() (err error) {
		r.network, err = b.(*vtep).open(inet.IPv4, subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Attrs: b.Attrs()})
		return errors.Join(err, ensureAny([]*device{r.network.device}))
	}))
	t.Cleanup(func() { r.check(r.network.Close()) })
	return r
}

func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func event(kind subnet.EventType, p, host, mac string) subnet.Event {
	l := subnet.Lease{Subnet: netip.MustParsePrefix(p)}
	if kind == subnet.Added {
		l.Attrs = subnet.Attrs{PublicIP: netip.MustParseAddr(host), BackendType: Type,
			BackendData: fmt.Appendf(nil, `{"VNI":1,"VtepMAC":%q}`, mac)}
	}
	return subnet.Event{Type: kind, Lease: &l}
}

// forwards is the FDB: MAC → host.
func (r *rig) forwards() string {
	r.Helper()
	link, err := r.host.Netlink().LinkByName("flannel.1")
	r.check(err)
	entries, err := r.host.Netlink().NeighList(link.Attrs().Index, unix.AF_BRIDGE)
	r.check(err)
	all := make(map[string]string)
	for _, e := range entries {
		if e.State&netlink.NUD_PERMANENT != 0 {
			all[e.HardwareAddr.String()] += e.IP.String()
		}
	}
	return fmt.Sprint(all)
}

func (r *rig) problems() string {
	all := make(map[string]string)
	for _, p := range r.network.Stats().Peers {
		if p.Problem != "" {
			all[p.Subnet.String()] = p.Problem
		}
	}
	return fmt.Sprint(all)
}

// A second host with a known MAC does not get the first one's packets.
func TestOneMACTwoHosts(t *testing.T) {
	r := newRig(t)
	const mac = "0e:00:00:00:00:09"
	first, clone := "192.168.77.9", "192.168.77.10"
	step := func(what, forwards, problems string, events ...subnet.Event) {
		t.Helper()
		r.network.Apply(events)
		if got := r.forwards(); got != "map["+forwards+"]" {
			t.Errorf("%s: forwards %s, want %s", what, got, forwards)
		}
		if got := r.problems(); got != "map["+problems+"]" {
			t.Errorf("%s: problems %s, want %s", what, got, problems)
		}
	}
	step("one host", mac+":"+first, "", event(subnet.Added, "10.5.9.0/24", first, mac))
	step("and a copy of it", mac+":"+first, "10.5.8.0/24:its MAC "+mac+" is that of "+first,
		event(subnet.Added, "10.5.8.0/24", clone, mac))
	step("which has a second subnet", mac+":"+first, "10.5.8.0/24:its MAC "+mac+" is that of "+first,
		event(subnet.Added, "10.5.10.0/24", first, mac))
	step("and loses one", mac+":"+first, "10.5.8.0/24:its MAC "+mac+" is that of "+first,
		event(subnet.Removed, "10.5.9.0/24", "", ""))
	step("and both", mac+":"+clone, "", event(subnet.Removed, "10.5.10.0/24", "", ""))
	step("all are gone", "", "", event(subnet.Removed, "10.5.8.0/24", "", ""))
	if len(r.network.macs) != 0 {
		t.Errorf("holders of MACs: %v", r.network.macs)
	}
}

// Another kind of device of our name is somebody's.
func TestForeignDevice(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "flannel.1"
	if err := h.Netlink().LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	b, err := New(config(t, `{}`))
	if err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() error {
		_, err := b.Up(t.Context(), subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24")})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "of type bridge") {
		t.Errorf("error %v", err)
	}
	if err := h.Do(func() error { return Remove(t.Context(), netip.MustParsePrefix("10.5.0.0/16")) }); err != nil || !h.HasLink("flannel.1") {
		t.Errorf("removed: %v", err)
	}
}

// Remove takes a device only from this network, and only from the dead.
func TestRemove(t *testing.T) {
	r := newRig(t)
	r.network.Apply(nil)
	ours, other := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.6.0.0/16")
	remove := func(p netip.Prefix) bool {
		r.check(r.host.Do(func() error { return Remove(t.Context(), p) }))
		return !r.host.HasLink("flannel.1")
	}
	if remove(ours) {
		t.Error("removed from a running network")
	}
	r.check(r.network.lock.Close())
	if remove(other) {
		t.Error("removed from another network")
	}
	if !remove(ours) {
		t.Error("not removed")
	}
	var err error
	r.check(r.host.Do(func() error { // for Close
		r.network.lock, err = netdev.Lock("flannel.1")
		return err
	}))
}
