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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
		netnstest.WireGuard.Missing(t, err)
		return []string{"userspace"}
	}
	return []string{"userspace", "kernel"}
}

// routeLines are the program's routes, in order.
func routeLines(t *testing.T, n *node) string {
	t.Helper()
	out, err := output(t, n.Host, "ip", "-4", "route", "show", "proto", "85")
	if err != nil {
		t.Fatal(out)
	}
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

const (
	tunnelRoute   = "10.5.0.0/16 dev flannel-wg scope link"
	prohibitRoute = "prohibit 10.5.0.0/16 metric 4294967295"
)

// guardPSK is a key that all hosts of a network share.
const guardPSK = "ak4L9d0cCkrdWhPRJ5Y1U0r5QN1dZPQkBwJAlLM/d1o="

func wireguardCase(datapath string) backendCase {
	read := statusPeers
	if datapath == "kernel" {
		read = guardPeers // the status ends with the daemon, the device does not
	}
	return backendCase{
		name: "wireguard " + datapath, mtu: 1420, staysUp: datapath == "kernel", device: guardDevice,
		config: `{"Type": "wireguard", "Datapath": "` + datapath + `", "PSK": "` + guardPSK + `"}`,
		lease: func(addr, key string) string {
			return `{"PublicIP":"` + addr + `","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"` + key + `","Port":51820}}`
		},
		own: func(v leaseValue) string { return v.BackendData.PublicKey },
		// Some digits of base64, so that the last holds no bits too many.
		madeUp: func(n int) string { return fmt.Sprintf("%043d=", n*16) },
		read:   read, wants: wantsAt,
		harms: []string{
			"ip link del flannel-wg", "ip link set flannel-wg down", "ip addr flush dev flannel-wg",
			"ip route del 10.5.0.0/16 dev flannel-wg", "ip route del prohibit 10.5.0.0/16 metric 4294967295",
		},
		check: func(t *testing.T, tr *trio) { guardIsSafe(t, tr, datapath) },
		away: func(t *testing.T, n *node) {
			if got := routeLines(t, n); datapath == "userspace" && got != prohibitRoute {
				t.Errorf("routes of %s while it is away: %s", n.Name(), got)
			}
		},
	}
}

// guardPeers reads the peers of the kernel's device, each with its subnet.
func guardPeers(n *node) (map[string]string, error) {
	out, err := output(n.t, n.Host, "wg", "show", guardDevice, "dump")
	if err != nil {
		return nil, fmt.Errorf("wg show: %w: %s", err, out)
	}
	peers := make(map[string]string)
	for line := range strings.Lines(out) {
		// public key, preshared key, endpoint, allowed IPs, and what is no matter; the
		// first line is about the device.
		fields := strings.Fields(line)
		if len(fields) != 8 {
			continue
		}
		endpoint, err := netip.ParseAddrPort(fields[2])
		if err != nil {
			return nil, err
		}
		for subnet := range strings.SplitSeq(fields[3], ",") { // a peer may have several
			peers[subnet] = "at " + endpoint.Addr().String()
		}
	}
	return peers, nil
}

// guardIsSafe checks the protection of secrets and of packets.
func guardIsSafe(t *testing.T, tr *trio, datapath string) {
	t.Helper()
	for i, n := range tr.nodes {
		path := filepath.Join(filepath.Dir(n.envFile), "wgkey")
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o400 {
			t.Errorf("key file: %v, %v", info, err)
		}
		key, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tr.daemons[i].says("datapath=" + datapath)
		for _, secret := range []string{strings.TrimSpace(string(key)), guardPSK} {
			if strings.Contains(tr.daemons[i].log.String(), secret) || strings.Contains(n.statusText(), secret) {
				t.Error("a secret is in the log or in the status")
			}
		}
		if got := routeLines(t, n); got != tunnelRoute+"\n"+prohibitRoute {
			t.Errorf("routes of %s: %s", n.Name(), got)
		}
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
				startSender(a, b.containerAddr(), mark, stop)
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
				startSender(a, b.containerAddr(), mark, stop)
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

// startSender sends a marked datagram every millisecond.
func startSender(from *node, to netip.Addr, mark []byte, stop chan struct{}) {
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

// Impossible options are refused, and the error does not quote a secret.
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

// A host without the program: wireguard-go's own binary, set up with wg(8) after
// the protocol's description alone.
func TestWireGuardPeerByHand(t *testing.T) {
	testWireGuardByHand(t, "auto", func(hand *node) string { return hand.runWireGuardGo(51820) })
}

// The same with a device of the kernel, for either implementation on our side.
func TestWireGuardKernelPeerByHand(t *testing.T) {
	all := wireguards(t)
	if !slices.Contains(all, "kernel") {
		return
	}
	for _, datapath := range all {
		t.Run(datapath, func(t *testing.T) {
			testWireGuardByHand(t, datapath, func(hand *node) string {
				hand.run("ip", "link", "add", "wg0", "type", "wireguard")
				return "wg0"
			})
		})
	}
}

// testWireGuardByHand sets up the device that makeDevice makes on a host by hand.
func testWireGuardByHand(t *testing.T, datapath string, makeDevice func(hand *node) string) {
	c := newCluster(t, "3")
	c.use(`{"Type": "wireguard", "Datapath": "` + datapath + `"}`)
	a := c.node("a")
	a.join()
	a.addContainer()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	hand := c.byHand("hand", fmt.Sprintf(`{"PublicIP":"%%v","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":%q,"Port":51820}}`, key.PublicKey()))

	device := makeDevice(hand)
	_, v := parseLease(t, a.leaseKey(), c.leases()[a.leaseKey()])
	hand.setWireGuard(device, key, 51820, v.BackendData.PublicKey, netip.AddrPortFrom(v.PublicIP, 51820), a.subnet())
	hand.AddAddr(device, netip.PrefixFrom(handSubnet.Addr(), 32))
	hand.AddRoute(network, netip.Addr{}, device)
	c.awaitPair(a, hand)
	if err := transfer(t, a.container, hand.container, hand.containerAddr()); err != nil {
		t.Error(err)
	}
	out, err := output(t, hand.Host, "wg", "show", device, "latest-handshakes")
	if fields := strings.Fields(out); err != nil || len(fields) != 2 || fields[0] != v.BackendData.PublicKey || fields[1] == "0" {
		t.Errorf("wg show: %q, %v, want a session with %s", out, err, v.BackendData.PublicKey)
	}
}

// runWireGuardGo runs wireguard-go on the node and returns its device, whose name has
// the port in it.
func (n *node) runWireGuardGo(port int) (device string) {
	t := n.t
	t.Helper()
	binary := filepath.Join(t.TempDir(), "wireguard-go")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "golang.zx2c4.com/wireguard").CombinedOutput(); err != nil {
		t.Fatalf("build wireguard-go: %v\n%s", err, out)
	}
	// Its control socket is named after the interface, in one folder for all
	// network namespaces.
	device = fmt.Sprintf("wg%d-%d", os.Getpid(), port)
	plain := n.Command(context.Background(), binary, "-f", device)
	var said bytes.Buffer
	plain.Stdout, plain.Stderr = &said, &said
	if err := plain.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = plain.Process.Signal(unix.SIGTERM) // and it removes its socket
		if err := plain.Wait(); t.Failed() {
			t.Logf("wireguard-go: %v\n%s", err, said.String())
		}
	})
	return device
}

// setWireGuard gives a device its key, port and one peer by wg(8).
func (n *node) setWireGuard(device string, key wgtypes.Key, port int, peer string, endpoint netip.AddrPort, allowed netip.Prefix) {
	t := n.t
	t.Helper()
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte(key.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device takes its configuration", func() error {
		out, err := output(t, n.Host, "wg", "set", device, "private-key", secret, "listen-port", fmt.Sprint(port),
			"peer", peer, "endpoint", endpoint.String(), "allowed-ips", allowed.String())
		if err != nil {
			return fmt.Errorf("wg set: %w: %s", err, out)
		}
		return nil
	})
	n.SetMTU(device, 1420)
	n.Up(device)
}

// A host goes from the kernel's WireGuard to the one in user space and back. The device
// of the one is in the way of the other.
func TestWireGuardDatapathChanges(t *testing.T) {
	if !slices.Contains(wireguards(t), "kernel") {
		return
	}
	c := newCluster(t, "3")
	use := func(datapath string) { c.use(`{"Type": "wireguard", "Datapath": "` + datapath + `"}`) }
	use("kernel")
	a, b := c.node("a"), c.node("b")
	da, _ := c.joinPair(a, b)
	for _, datapath := range []string{"userspace", "kernel"} {
		da.stop()
		use(datapath)
		da = a.join()
		da.says("datapath=" + datapath)
		c.awaitPair(a, b)
		copyBulk(t, a.container, b.container)
	}
}
