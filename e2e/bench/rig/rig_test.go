package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet"
)

// programs are what the benchmark runs, built once.
var programs Programs

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // tests that need the programs are skipped
	}
	dir, err := os.MkdirTemp("", "bench-rig-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs = Programs{filepath.Join(dir, "flannel"), filepath.Join(dir, "wireguard-go")}
	for path, pkg := range map[string]string{
		programs.Flannel: "github.com/coreos/flannel", programs.WireGuardGo: "golang.zx2c4.com/wireguard",
	} {
		if out, err := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", path, pkg).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, out)
			return 1
		}
	}
	return m.Run()
}

func newRig(t *testing.T) *Rig {
	t.Helper()
	netnstest.Require(t)
	return New(t, programs, t.TempDir())
}

func subject(t *testing.T, name string) Subject {
	t.Helper()
	for _, s := range Subjects() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no subject %s", name)
	return Subject{}
}

func pair(t *testing.T, r *Rig, name string, in Setting) *Pair {
	t.Helper()
	p, err := r.Pair(t.Context(), subject(t, name), in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// usual is the first of each dimension, with that many routes.
func usual(routes int) Setting {
	return Setting{Links()[0], routes, EndKinds()[0], RuleSets()[0], inet.IPv4}
}

func up(t *testing.T, p *Pair) (a, b load.End) {
	t.Helper()
	a, b, err := p.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// made returns the routes of h to one subnet each.
func made(t *testing.T, h *netnstest.Host) int {
	t.Helper()
	routes, err := h.Netlink().RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range routes {
		if r.Gw != nil && r.Dst != nil && r.Dst.String() != "0.0.0.0/0" {
			n++
		}
	}
	return n
}

func TestRaw(t *testing.T) {
	p := pair(t, newRig(t), "raw", usual(50))
	a, b := up(t, p)
	if a.Addr != netip.MustParseAddr("10.0.1.2") || b.Addr != netip.MustParseAddr("10.0.2.2") {
		t.Errorf("the ends are %v and %v", a.Addr, b.Addr)
	}
	for _, h := range p.hosts {
		if got := made(t, h); got != 50 {
			t.Errorf("%s: %d routes to peers, want 50", h.Name(), got)
		}
	}
}

func TestKernelVXLAN(t *testing.T) {
	p := pair(t, newRig(t), Reference, usual(50))
	a, b := up(t, p)
	for _, e := range p.hosts {
		if got := made(t, e); got != 50 {
			t.Errorf("%s: %d routes, want 50", e.Name(), got)
		}
		link, err := e.Netlink().LinkByName(vxlanDevice)
		if err != nil {
			t.Fatal(err)
		}
		if got := link.Attrs().MTU; got != 1450 {
			t.Errorf("%s: MTU %d, want 1450", e.Name(), got)
		}
		for family, want := range map[int]int{unix.AF_INET: 50, unix.AF_BRIDGE: 50} {
			entries, err := e.Netlink().NeighList(link.Attrs().Index, family)
			if err != nil {
				t.Fatal(err)
			}
			permanent := 0
			for _, n := range entries {
				if n.State&netlink.NUD_PERMANENT != 0 {
					permanent++
				}
			}
			if permanent != want {
				t.Errorf("%s: %d permanent entries of family %d, want %d", e.Name(), permanent, family, want)
			}
		}
	}
	// The load goes through the tunnel.
	sent := bytesOf(t, p.hosts[0], vxlanDevice)
	if out, err := a.Command(t.Context(), "ping", "-c1", "-s1000", "-I", a.Addr.String(), b.Addr.String()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := bytesOf(t, p.hosts[0], vxlanDevice) - sent; got < 1000 {
		t.Errorf("%d bytes went through the tunnel, want 1000 at least", got)
	}
}

func bytesOf(t *testing.T, e *netnstest.Host, device string) uint64 {
	t.Helper()
	link, err := e.Netlink().LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Statistics.TxBytes
}

// The variants of the link differ in what crosses it.
func TestLinks(t *testing.T) {
	if _, err := exec.LookPath("ethtool"); err != nil {
		t.Skip("ethtool is not in PATH; install the Debian package ethtool")
	}
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("iperf3 is not in PATH; install the Debian package iperf3")
	}
	r := newRig(t)
	for _, l := range Links() {
		in := usual(1)
		in.Link = l
		p := pair(t, r, "raw", in)
		a, b := up(t, p)
		if _, err := load.TCP(t.Context(), a, b, load.Transfer{Streams: 1, Seconds: 1, Congestion: "cubic"}); err != nil {
			t.Fatal(err)
		}
		link, err := p.hosts[0].Netlink().LinkByName(linkName)
		if err != nil {
			t.Fatal(err)
		}
		s := link.Attrs().Statistics
		// A frame has 14 bytes of Ethernet header and no more than the MTU.
		mean := float64(s.TxBytes) / float64(s.TxPackets)
		if whole := mean > 1514; whole != (l.Name == "on") {
			t.Errorf("link %s: frames of %.0f bytes", l.Name, mean)
		}
		out, err := p.hosts[1].Command(t.Context(), "ethtool", "-k", linkName).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for feature, want := range map[string]bool{
			"\ngeneric-receive-offload: on": l.Name == "off" || l.Name == "csum",
			"\ntx-checksumming: on":         l.Name == "on" || l.Name == "csum",
		} {
			if got := strings.Contains(string(out), feature); got != want {
				t.Errorf("link %s: %q is %v, want %v", l.Name, feature, got, want)
			}
		}
	}
}

func TestDaemons(t *testing.T) {
	r := newRig(t)
	const routes = 300
	p := pair(t, r, "udp-plain", usual(routes))
	if again := pair(t, r, "udp-plain", usual(routes)); again != p {
		t.Error("the same pair is made twice")
	}
	a, b := up(t, p)
	got, err := r.store.client.Get(t.Context(), "/bench/"+p.name+"/subnets/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != routes+1 { // each host has a route to all but itself
		t.Errorf("%d leases, want %d", len(got.Kvs), routes+1)
	}
	for _, kv := range got.Kvs {
		l, err := subnet.ParseLease(filepath.Base(string(kv.Key)), kv.Value)
		if err != nil || !segments[inet.IPv4].Contains(l.Attrs.PublicIP) || kv.Lease == 0 {
			t.Errorf("%s = %s, lease %x: %v", kv.Key, kv.Value, kv.Lease, err)
		}
	}
	// The next trial finds the same addresses.
	pids := []int{processOf(t, p, 0), processOf(t, p, 1)}
	if err := p.Down(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("daemon %d runs after Down: %v", pid, err)
		}
	}
	if err := p.Down(); err != nil {
		t.Errorf("Down of what is down: %v", err)
	}
	if a2, b2 := up(t, p); a2.Addr != a.Addr || b2.Addr != b.Addr {
		t.Errorf("the ends are %v and %v, were %v and %v", a2.Addr, b2.Addr, a.Addr, b.Addr)
	}
}

func processOf(t *testing.T, p *Pair, i int) int {
	t.Helper()
	return p.transport.(*running).nodes[i].process.Process.Pid
}

// Our own settings must not reach the measured daemon.
func TestDaemonsIgnoreTheEnvironment(t *testing.T) {
	t.Setenv("FLANNELD_ETCD_USERNAME", "without-password") // which the daemon refuses
	up(t, pair(t, newRig(t), "udp-plain", usual(1)))
}

func TestRefused(t *testing.T) {
	r := newRig(t)
	for _, d := range []daemons{{typ: "no-such"}, {typ: "udp", dataPath: "no-such"}} {
		p, err := r.Pair(t.Context(), Subject{Name: "refused" + d.typ, open: d.open}, usual(1))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = p.Up(t.Context())
		refused := (*RefusedError)(nil)
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "no-such") || strings.Contains(refused.Reason, ".go:") {
			t.Errorf("%+v: %v; want the daemon's reason", d, err)
		}
	}
}

// wireguard-go by hand has as many peers as flannel, and leaves no process.
func TestWireGuardGo(t *testing.T) {
	p := pair(t, newRig(t), "wireguard-go", usual(50))
	a, b := up(t, p)
	w := p.transport.(*wireguardGo)
	for i, e := range p.hosts {
		link, err := e.Netlink().LinkByName(w.ends[i].device)
		if err != nil {
			t.Fatal(err)
		}
		if got := link.Attrs().MTU; got != 1420 {
			t.Errorf("%s: MTU %d, want 1420", e.Name(), got)
		}
		device, err := w.control.Device(w.ends[i].device)
		if err != nil || len(device.Peers) != 50 {
			t.Errorf("%s: %+v, %v; want 50 peers", e.Name(), device, err)
		}
	}
	sent := bytesOf(t, p.hosts[0], w.ends[0].device)
	if out, err := a.Command(t.Context(), "ping", "-c1", "-s1000", "-I", a.Addr.String(), b.Addr.String()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := bytesOf(t, p.hosts[0], w.ends[0].device) - sent; got < 1000 {
		t.Errorf("%d bytes went through the tunnel, want 1000 at least", got)
	}
	ended := w.ends[0].process.Ended()
	for range 2 { // the second has nothing to do
		if err := p.Down(); err != nil {
			t.Fatal(err)
		}
	}
	<-ended
	if sockets, err := filepath.Glob(fmt.Sprintf("/var/run/wireguard/wg%d-*", os.Getpid())); err != nil || len(sockets) > 0 {
		t.Errorf("left behind: %v, %v", sockets, err)
	}
	up(t, p) // the next trial
}

// A missing program leaves out its subject, and does not fail the run.
func TestWireGuardGoIsMissing(t *testing.T) {
	netnstest.Require(t)
	r := New(t, Programs{Flannel: programs.Flannel, WireGuardGo: filepath.Join(t.TempDir(), "none")}, t.TempDir())
	_, err := r.Pair(t.Context(), subject(t, "wireguard-go"), usual(1))
	if refused := (*RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "./bench builds it") {
		t.Errorf("error %v", err)
	}
}

func TestUpIsCancelled(t *testing.T) {
	p := pair(t, newRig(t), "udp-plain", usual(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := p.Up(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

// The leases of simulated peers equal those of real ones.
func TestPeerData(t *testing.T) {
	for _, c := range []struct {
		data any
		want string
	}{
		{vxlanData(inet.IPv4, 10000), `{"VNI":1,"VtepMAC":"02:00:00:00:27:10"}`},
		{wireguardData(inet.IPv4, 2), `{"PublicKey":"AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","Port":51820}`},
		{wireguardData(inet.IPv6, 2), `{"PublicKey":"AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","Port":51821}`},
	} {
		got, err := json.Marshal(c.data)
		if err != nil || string(got) != c.want {
			t.Errorf("%s, %v; want %s", got, err, c.want)
		}
	}
	seen := make(map[netip.Prefix]bool)
	for _, f := range inet.Families {
		for n := range 60000 {
			p, public := peerSubnet(f, n), publicIP(f, n)
			if !overlays[f].Contains(p.Addr()) || p != p.Masked() || seen[p] || !segments[f].Contains(public) || inet.Of(public) != f {
				t.Fatalf("peer %d: %v at %v", n, p, public)
			}
			seen[p] = true
		}
	}
	got, err := daemons{typ: "vxlan", data: vxlanData}.peer(1, inet.IPv6)
	want := lease{"10.0.2.0-24&fd00:10:0:2::-64", `{"PublicIP":"172.20.0.2","PublicIPv6":"fd00:172:20::2","BackendType":"vxlan",` +
		`"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}`}
	if err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// All daemons but those of the fast path's subject turn it off, if they have it.
func TestFastPathFlag(t *testing.T) {
	for help, want := range map[string]string{"  -etcd-prefix string\n": "", "\n  -fastpath string\n    \thow packets pass\n": "-fastpath=off"} {
		flannel := filepath.Join(t.TempDir(), "flannel")
		if err := os.WriteFile(flannel, []byte("#!/bin/sh\ncat <<'END'\n"+help+"END\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		got, err := daemons{typ: "udp"}.fastPathFlag(t.Context(), flannel)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		got, err = daemons{typ: "udp", fastPath: true}.fastPathFlag(t.Context(), flannel)
		if err != nil || strings.Join(got, " ") != "-fastpath=auto" {
			t.Errorf("%q, %v; want -fastpath=auto", got, err)
		}
	}
	if _, err := (daemons{}).fastPathFlag(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error for a missing program")
	}
}
