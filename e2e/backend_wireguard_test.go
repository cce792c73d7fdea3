package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/netnstest"
)

var kills = flag.Int("kills", 5, "how often to kill a daemon in tests of what leaves in clear text")

const guardDevice = "flannel-wg"

// wireguards are the implementations that this machine has.
func wireguards(t *testing.T) []string {
	t.Helper()
	netnstest.Require(t)
	h := netnstest.New(t).Host("probe")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe"
	if err := h.Netlink().LinkAdd(&netlink.Wireguard{LinkAttrs: attrs}); err != nil {
		if !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal(err)
		}
		t.Log("this kernel has no WireGuard, so only the userspace one is tested")
		return []string{"userspace"}
	}
	return []string{"userspace", "kernel"}
}

// guardRoutes are the routes of the backend, one per line.
func guardRoutes(t *testing.T, n *node) string {
	t.Helper()
	out, err := output(t, n.Host, "ip", "-4", "route", "show", "proto", "85")
	if err != nil {
		t.Fatal(out)
	}
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "; ")
}

const (
	tunnelRoute   = "10.5.0.0/16 dev flannel-wg scope link"
	prohibitRoute = "prohibit 10.5.0.0/16 metric 4294967295"
)

func TestWireGuard(t *testing.T) {
	for _, datapath := range wireguards(t) {
		t.Run(datapath, func(t *testing.T) {
			tr := newTrio(t, `{"Type": "wireguard", "Datapath": "`+datapath+`", "PSK": "ak4L9d0cCkrdWhPRJ5Y1U0r5QN1dZPQkBwJAlLM/d1o="}`)
			for _, n := range tr.nodes {
				keyFile := filepath.Join(filepath.Dir(n.envFile), "wgkey")
				_, v := parseLease(t, n.leaseKey(), tr.leases()[n.leaseKey()])
				want := fmt.Sprintf(`{"PublicIP":"%v","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"%s","Port":51820}}`, n.Addr().Addr(), v.BackendData.PublicKey)
				if got := shared(tr.leases()[n.leaseKey()]); got != want || len(v.BackendData.PublicKey) != 44 {
					t.Errorf("lease of %s is\n%s, want\n%s", n.Name(), got, want)
				}
				if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm() != 0o400 {
					t.Errorf("key file: %v, %v", info, err)
				}
				if n.mtu() != 1420 {
					t.Errorf("FLANNEL_MTU is %d, want 1420", n.mtu())
				}
				if got := guardRoutes(t, n); got != tunnelRoute+"; "+prohibitRoute {
					t.Errorf("routes of %s: %s", n.Name(), got)
				}
			}
			key, err := os.ReadFile(filepath.Join(filepath.Dir(tr.nodes[0].envFile), "wgkey"))
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{strings.TrimSpace(string(key)), "ak4L9d0cCkrdWhPRJ5Y1U0r5QN1dZPQkBwJAlLM/d1o="} {
				if strings.Contains(tr.daemons[0].log.String(), secret) {
					t.Error("a secret is in the log")
				}
			}
			tr.daemons[0].says("datapath=" + datapath)
			tr.transferAll()

			publicKey := tr.leases()[tr.nodes[0].leaseKey()]
			for _, end := range []func(*daemon){(*daemon).stop, (*daemon).kill} {
				for i, n := range tr.nodes[:2] {
					end(tr.daemons[i])
					if datapath == "userspace" && guardRoutes(t, n) != prohibitRoute {
						t.Errorf("routes of %s while it is away: %s", n.Name(), guardRoutes(t, n))
					}
					tr.daemons[i] = n.join()
				}
				tr.meetAll()
			}
			if again := tr.leases()[tr.nodes[0].leaseKey()]; again != publicKey {
				t.Errorf("the lease was %s, is %s", publicKey, again)
			}
			tr.flap(tr.nodes[0])
			tr.meetAll()
			for _, harm := range []string{
				"ip link del flannel-wg", "ip link set flannel-wg down", "ip addr flush dev flannel-wg",
				"ip route del 10.5.0.0/16 dev flannel-wg", "ip route del prohibit 10.5.0.0/16 metric 4294967295",
			} {
				tr.nodes[0].run(strings.Fields(harm)...)
				eventually(t, harm+" is undone", func() error {
					if got := guardRoutes(t, tr.nodes[0]); got != tunnelRoute+"; "+prohibitRoute {
						return errors.New(got)
					}
					return nil
				})
				tr.meetAll()
			}
			tr.churn(func(random int) string {
				return fmt.Sprintf(`{"PublicIP":"192.168.77.%d","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"%043d=","Port":51820}}`, 100+random, random*16)
			})
			tr.keys.del(t, "subnets/"+tr.nodes[2].leaseKey()) // its daemon makes it again
			tr.meetAll()
		})
	}
}

// While the tunnel is away, at start, after a stop or a kill, not one packet of
// the network leaves the host in clear text.
func TestWireGuardFailsClosed(t *testing.T) {
	for _, datapath := range wireguards(t) {
		t.Run(datapath, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(`{"Type": "wireguard", "Datapath": "` + datapath + `"}`)
			a, b := c.node("a"), c.node("b")
			da, _ := c.joinPair(a, b)
			capture := startCapture(t, a)
			mark := []byte("clear text marker")
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				chatter(a, b.containerAddr(), mark, stop)
			}()
			for range *kills {
				da.kill()
				da = a.join()
			}
			da.stop()
			capture.mustHold(t, func(frames [][]byte) error {
				if len(frames) == 0 {
					return errors.New("nothing was captured, so nothing is proved")
				}
				return nil
			})
			da = a.join()
			eventually(t, "packets go through the tunnel again", func() error {
				return ping(t, a.container, b.containerAddr())
			})
			close(stop)
			<-stopped
			for _, frame := range capture.end() {
				if bytes.Contains(frame, mark) {
					t.Fatalf("left in clear text: % x", frame)
				}
			}

			// The capture does see such packets: without the prohibit route.
			da.stop()
			if datapath == "kernel" {
				a.run("ip", "link", "del", guardDevice)
			}
			a.run("ip", "route", "del", "prohibit", "10.5.0.0/16", "metric", "4294967295")
			again := startCapture(t, a)
			stop, stopped = make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				chatter(a, b.containerAddr(), mark, stop)
			}()
			again.mustHold(t, func(frames [][]byte) error {
				for _, frame := range frames {
					if bytes.Contains(frame, mark) {
						return nil
					}
				}
				return errors.New("no clear text was seen")
			})
			close(stop)
			<-stopped
		})
	}
}

// chatter sends a marked datagram every millisecond.
func chatter(from *node, to netip.Addr, mark []byte, stop chan struct{}) {
	conn, err := from.container.ListenPacket(from.t.Context(), "udp4", ":0")
	if err != nil {
		from.t.Error(err)
		return
	}
	defer conn.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	dst := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, servicePort))
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			// An ICMP error for the last one is reported with the next.
			_, _ = conn.WriteTo(mark, dst)
		}
	}
}

// What cannot be is refused, and a secret is not quoted.
func TestWireGuardRefusesWrongOptions(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	for options, want := range map[string]string{
		`"PSK": "secret"`:                   "Backend.PSK is not a key",
		`"ListenPort": 70000`:               "Backend.ListenPort 70000",
		`"PersistentKeepaliveInterval": -1`: "Backend.PersistentKeepaliveInterval -1",
		`"Datapath": "magic"`:               `Backend.Datapath "magic"`,
		`"MTU": 100`:                        "MTU 100",
		`"ListenPort": "secret"`:            "option ListenPort",
	} {
		c.use(`{"Type": "wireguard", ` + options + `}`)
		d := a.launch()
		if code := d.wait().ExitCode(); code != 1 {
			t.Errorf("%s: exit code %d, want 1", options, code)
		}
		d.says(want)
		if strings.Contains(d.log.String(), "secret") {
			t.Errorf("the log quotes a secret:\n%s", d.log)
		}
	}
}

// A host without the program: wireguard-go's own binary, set up after the
// protocol's description alone.
func TestWireGuardPeerByHand(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "wireguard"}`)
	a := c.node("a")
	a.join()
	a.addContainer()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	hand := c.byHand("hand", fmt.Sprintf(`{"PublicIP":"%%v","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":%q,"Port":51820}}`, key.PublicKey()))

	binary := filepath.Join(t.TempDir(), "wireguard-go")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "golang.zx2c4.com/wireguard").CombinedOutput(); err != nil {
		t.Fatalf("build wireguard-go: %v\n%s", err, out)
	}
	// Its control socket is named after the interface, in one folder for all
	// network namespaces.
	device := fmt.Sprintf("wg%d", os.Getpid())
	plain := hand.Command(context.Background(), binary, "-f", device)
	if err := plain.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = plain.Process.Signal(unix.SIGTERM) // and it removes its socket
		_ = plain.Wait()
	})
	control, err := wgctrl.New()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	_, v := parseLease(t, a.leaseKey(), c.leases()[a.leaseKey()])
	peer, err := wgtypes.ParseKey(v.BackendData.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	_, allowed, err := net.ParseCIDR(a.subnet().String())
	if err != nil {
		t.Fatal(err)
	}
	port := 51820
	eventually(t, "wireguard-go takes its configuration", func() error {
		return control.ConfigureDevice(device, wgtypes.Config{PrivateKey: &key, ListenPort: &port, Peers: []wgtypes.PeerConfig{{
			PublicKey: peer, Endpoint: net.UDPAddrFromAddrPort(netip.AddrPortFrom(v.PublicIP, uint16(port))), AllowedIPs: []net.IPNet{*allowed},
		}}})
	})
	hand.SetMTU(device, 1420)
	hand.AddAddr(device, netip.PrefixFrom(handSubnet.Addr(), 32))
	hand.Up(device)
	hand.AddRoute(network, netip.Addr{}, device)
	c.meet(a, hand)
	if err := transfer(t, a.container, hand.container, hand.containerAddr()); err != nil {
		t.Error(err)
	}
}
