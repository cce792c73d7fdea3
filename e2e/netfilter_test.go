package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Flows that nftables forwards by a flowtable go on, also while the daemon restarts if
// the kernel carries the packets.
func TestFlowtable(t *testing.T) {
	netnstest.Require(t)
	out, err := output(t, netnstest.New(t).Host("probe"), "nft", flowtable("eth0"))
	if err != nil {
		if !strings.Contains(out, "No such file or directory") && !strings.Contains(out, "not supported") {
			t.Fatalf("nft: %v\n%s", err, out)
		}
		netnstest.Flowtable.Missing(t, out)
		return
	}
	for _, w := range carriers(t) {
		t.Run(w.name, func(t *testing.T) {
			c, a, b, da, _ := pairOf(t, w)
			for _, n := range []*node{a, b} {
				devices := "eth0, veth-" + n.Name() + "-docker0"
				if w.device != "" {
					devices += ", " + w.device
				}
				n.run("nft", flowtable(devices))
			}
			s := startStream(t, a.container, b.container)
			s.progresses(t)
			for _, n := range []*node{a, b} {
				eventually(t, "the flow is in the table of "+n.Name(), func() error {
					out, err := output(t, n.Host, "conntrack", "-L", "-p", "tcp")
					if err == nil && !strings.Contains(out, "OFFLOAD") {
						err = fmt.Errorf("%s", out)
					}
					return err
				})
			}
			s.progresses(t)
			if w.staysUp {
				da.stop()
				s.progresses(t)
				a.join()
				s.progresses(t)
			}
			copyBulk(t, b.container, a.container)
			c.awaitPair(a, b)
		})
	}
}

// flowtable is a ruleset that forwards TCP by a flowtable over devices: all on the way
// of the packets.
func flowtable(devices string) string {
	return `
		add table ip flows
		add flowtable ip flows fast { hook ingress priority 0; devices = { ` + devices + ` }; }
		add chain ip flows forward { type filter hook forward priority 0; }
		add rule ip flows forward ip protocol tcp flow add @fast`
}

// With br_netfilter, what a bridge forwards passes the rules of iptables and nftables,
// too. Containers keep their addresses among each other all the same.
func TestBridgeNetfilter(t *testing.T) {
	netnstest.Require(t)
	err := netnstest.New(t).Host("probe").Do(func() error {
		_, err := os.Stat("/proc/sys/net/bridge")
		return err
	})
	if err != nil { // a test does not load it, since it changes all bridges of a machine
		t.Logf("br_netfilter is not loaded: %v", err)
		return
	}
	for _, w := range carriers(t) {
		t.Run(w.name, func(t *testing.T) {
			_, a, b, _, _ := pairOf(t, w, "-ip-masq")
			for _, n := range []*node{a, b} {
				n.Sysctl("net.bridge.bridge-nf-call-iptables", "1")
			}
			second := a.Container("second", "docker0", netip.PrefixFrom(a.containerAddr().Next(), a.subnet().Bits()), a.gateway().Addr(), a.mtu())
			l, err := second.Listen(t.Context(), "tcp4", netip.AddrPortFrom(second.Addr().Addr(), 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			far, err := b.container.Listen(t.Context(), "tcp4", netip.AddrPortFrom(b.containerAddr(), 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			for name, server := range map[string]net.Listener{"at the same bridge": l, "at another host": far} {
				conn, err := a.container.Dial(limited(t), "tcp4", server.Addr().String())
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				got, err := server.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if from := got.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != a.containerAddr() {
					t.Errorf("%s: a connection comes from %v, want %v", name, from, a.containerAddr())
				}
				conn.Close()
				got.Close()
			}
			copyBulk(t, a.container, b.container)
			copyBulk(t, b.container, a.container)
		})
	}
}

// A chain of the administrator at a tunnel device is gone, dead or at the new device
// after flannel has made the device again. It sees packets once it is added again.
func TestChainAtReplacedDevice(t *testing.T) {
	for _, w := range carriers(t) {
		if w.device == "" {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			c, a, b, _, _ := pairOf(t, w)
			chain := `
				add table netdev user
				add chain netdev user in { type filter hook ingress device ` + w.device + ` priority 0; }
				add rule netdev user in counter`
			a.run("nft", chain)
			counts := func() error {
				before := counter(t, a.Host, "netdev user in")
				if err := ping(t, b.container, a.containerAddr()); err != nil {
					return err
				}
				if now := counter(t, a.Host, "netdev user in"); now == before {
					return fmt.Errorf("counts %q", now)
				}
				return nil
			}
			eventually(t, "the chain counts", counts)
			a.run("ip", "link", "del", w.device)
			c.awaitPair(a, b)
			if err := counts(); err != nil {
				t.Logf("the chain does not see the new device: %v", err)
			}
			a.run("nft", "add table netdev user; delete table netdev user;"+chain)
			eventually(t, "the new chain counts", counts)
		})
	}
}

// counter returns the counter of a chain, "" if there is no such chain.
func counter(t *testing.T, h *netnstest.Host, chain string) string {
	t.Helper()
	out, _ := output(t, h, "nft", append([]string{"list", "chain"}, strings.Fields(chain)...)...)
	_, after, _ := strings.Cut(out, "counter ")
	count, _, _ := strings.Cut(after, "\n")
	return count
}
