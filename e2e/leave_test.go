package e2e

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// leaveLimit is the promised time in which SIGTERM ends the program.
const leaveLimit = 2 * time.Second

func TestSignalsEndIt(t *testing.T) {
	for _, test := range []struct {
		sig      syscall.Signal
		dataPath string
	}{{syscall.SIGTERM, "offload"}, {syscall.SIGINT, "plain"}, {syscall.SIGTERM, "kernel"}} {
		t.Run(fmt.Sprintf("%v, %s", test.sig, test.dataPath), func(t *testing.T) {
			c := newCluster(t, "3")
			a := c.node("a", dataPathFlag+test.dataPath)
			d := a.join()
			stays := test.dataPath == "kernel" // packets go on
			if stays {
				c.awaitKernelLease(a)
			}
			key, value := a.leaseKey(), c.leases()[a.leaseKey()]

			began := time.Now()
			d.signal(test.sig)
			if code := d.wait().ExitCode(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if took := time.Since(began); took > leaveLimit {
				t.Errorf("left after %v, promised are %v", took, leaveLimit)
			}
			if a.HasLink("flannel0") != stays {
				t.Errorf("is the device still there: %v, want %v", !stays, stays)
			}
			if got := c.leases()[key]; got != value || value == "" {
				t.Errorf("the lease is %q, was %q; it must stay", got, value)
			}
			if _, err := os.Stat(a.envFile); err != nil {
				t.Errorf("subnet.env must stay: %v", err)
			}
		})
	}
}

// A host that stops keeps its lease, so the others see no change until it
// expires or the operator deletes it. Then senders get ICMP.
func TestPeerLeaves(t *testing.T) {
	for _, api := range []string{"3", "2"} {
		t.Run("api"+api, func(t *testing.T) {
			c := newCluster(t, api)
			a, b, _, db := c.pair()
			db.stop()
			a.awaitPeer(b.subnet(), b.Addr().Addr())

			c.keys.del(t, "subnets/"+b.leaseKey())
			a.awaitPeer(b.subnet(), netip.Addr{})
			eventually(t, "the container hears that the subnet is gone", func() error {
				err := ping(t, a.container, b.containerAddr())
				if err == nil || !strings.Contains(err.Error(), "Net Unreachable") {
					return fmt.Errorf("ping says: %w", err)
				}
				return nil
			})
			if a.drops("no_route") == 0 {
				t.Error("the refusal is not counted")
			}
		})
	}
}

func TestRestartKeepsTheSubnet(t *testing.T) {
	for _, test := range []struct {
		name    string
		between func(t *testing.T, c *cluster, b *node, d *daemon)
	}{
		{"stopped", func(_ *testing.T, _ *cluster, _ *node, d *daemon) { d.stop() }},
		{"killed", func(_ *testing.T, _ *cluster, _ *node, d *daemon) { d.kill() }},
		{"stopped, subnet.env lost", func(t *testing.T, _ *cluster, b *node, d *daemon) {
			d.stop()
			if err := os.Remove(b.envFile); err != nil {
				t.Fatal(err)
			}
		}},
		{"stopped, lease expired", func(t *testing.T, c *cluster, b *node, d *daemon) {
			d.stop()
			c.keys.del(t, "subnets/"+b.leaseKey())
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, "3")
			a, b, _, db := c.pair()
			before := b.subnet()
			test.between(t, c, b, db)
			b.join()
			if after := b.subnet(); after != before {
				t.Fatalf("the subnet is %v, was %v", after, before)
			}
			c.awaitPair(a, b)
			if n := len(c.leases()); n != 2 {
				t.Errorf("%d leases for two hosts", n)
			}
		})
	}
}

// A subnet that another host holds is not ours to use: containers here would
// have its addresses. That is the one failure of a host that runs.
func TestLeaseTakenByAnotherHost(t *testing.T) {
	for _, api := range []string{"3", "2"} {
		t.Run("api"+api, func(t *testing.T) {
			c := newCluster(t, api)
			a := c.node("a")
			d := a.join()
			c.keys.put(t, "subnets/"+a.leaseKey(), `{"PublicIP":"192.168.77.99"}`, 0)
			if code := d.wait().ExitCode(); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			d.says("192.168.77.99") // the owner
			if a.HasLink("flannel0") {
				t.Error("the device is still there")
			}
		})
	}
}

// The second signal has its default effect. After the first, a client with an
// unfinished request to the status server keeps the program running for a
// moment.
func TestSecondSignalKills(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a", dataPathFlag+"offload")
	d := a.join()
	conn, err := a.Dial(limited(t), "tcp", strings.TrimPrefix(statusURL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// An answer to this shows that the connection is in use; the body that was
	// promised is awaited behind the answer.
	fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("status server says %q, %v", line, err)
	}
	d.signal(syscall.SIGTERM)
	eventually(t, "the first signal is seen", func() error {
		if a.HasLink("flannel0") {
			return fmt.Errorf("flannel0 is still there")
		}
		return nil
	})
	d.signal(syscall.SIGTERM)
	how := d.wait().Sys().(syscall.WaitStatus)
	if !how.Signaled() || how.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want death by SIGTERM", how)
	}
}

// The state of an operator or another program remains, and nothing else.
func TestNothingIsLeftBehind(t *testing.T) {
	for _, how := range []struct {
		name string
		end  func(*daemon)
		args []string
	}{
		{"stopped", (*daemon).stop, []string{dataPathFlag + "offload"}},
		{"killed and started again", (*daemon).kill, []string{dataPathFlag + "offload"}},
		{"masquerading", (*daemon).stop, []string{dataPathFlag + "plain", "-ip-masq"}},
		// The kernel data path stays until a start with another data path.
		{"kernel, stopped and started again", (*daemon).stop, []string{dataPathFlag + "kernel"}},
		{"kernel, killed and started again", (*daemon).kill, []string{dataPathFlag + "kernel"}},
	} {
		t.Run(how.name, func(t *testing.T) {
			c := newCluster(t, "3")
			a := c.node("a")
			// This is foreign state, partly inside the overlay's range.
			a.Bridge("br-foreign", netip.MustParsePrefix("172.30.0.1/16"), 0)
			a.AddRoute(netip.MustParsePrefix("10.5.255.0/24"), netip.Addr{}, netnstest.Uplink)
			a.AddRoute(netip.MustParsePrefix("10.6.0.0/16"), c.lab.Router().Addr().Addr(), netnstest.Uplink)
			if out, err := output(t, a.Host, "nft", "add table ip foreign { chain c { type filter hook forward priority 0; policy accept; }; }"); err != nil {
				t.Fatal(out)
			}
			before := kernelState(t, a.Host)
			d := a.join(how.args...)
			if kernelState(t, a.Host) == before {
				t.Fatal("nothing changed; the comparison sees nothing")
			}
			how.end(d)
			if strings.HasSuffix(how.name, "started again") {
				a.join(dataPathFlag + "plain").stop()
			}
			if after := kernelState(t, a.Host); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// kernelState is all that a network daemon might touch, without counters. IPv6
// addresses and routes come and go of themselves in a host's first seconds.
func kernelState(t *testing.T, h *netnstest.Host) string {
	t.Helper()
	var all strings.Builder
	for _, command := range []string{
		"ip -brief link", "ip -4 -brief address", "ip -4 route show table all", "ip -4 rule",
		"nft --stateless list ruleset", "sysctl net.ipv4.ip_forward",
	} {
		words := strings.Fields(command)
		out, err := h.Command(t.Context(), words[0], words[1:]...).Output() // without warnings
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		fmt.Fprintf(&all, "$ %s\n%s", command, out)
	}
	return all.String()
}
