package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// The daemon repairs changes of the device, its address and its route.
func TestDeviceIsRepaired(t *testing.T) { overEachDataPath(t, testDeviceIsRepaired) }

func testDeviceIsRepaired(t *testing.T, dataPath string) {
	c := newCluster(t, "3")
	a, b := c.node("a", dataPath), c.node("b", dataPath)
	c.joinPair(a, b)
	for _, harm := range []string{
		"ip route del " + network.String() + " dev flannel0",
		"ip address flush dev flannel0",
		"ip address add 10.5.99.99/32 dev flannel0",
		"ip link set flannel0 mtu 1000",
		"ip link set flannel0 down",
		"ip link del flannel0",
	} {
		words := strings.Fields(harm)
		before, err := deviceState(t, a.Host)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := output(t, a.Host, words[0], words[1:]...); err != nil {
			t.Fatalf("%s: %s", harm, out)
		}
		eventually(t, "repair after "+harm, func() error {
			after, err := deviceState(t, a.Host)
			if after != before {
				err = errors.Join(err, fmt.Errorf("before:\n%s\nafter:\n%s", before, after))
			}
			return err
		})
		c.awaitPair(a, b)
	}
}

// deviceState is all that is set up of the device, but its number.
func deviceState(t *testing.T, h *netnstest.Host) (string, error) {
	t.Helper()
	var all strings.Builder
	for _, command := range []string{
		"ip -4 -brief address show dev flannel0",
		"ip -4 route show dev flannel0", "ip -o link show dev flannel0",
	} {
		words := strings.Fields(command)
		out, err := output(t, h, words[0], words[1:]...)
		if err != nil {
			return "", fmt.Errorf("%s: %s", command, out)
		}
		_, text, numbered := strings.Cut(out, ": flannel0:")
		if !numbered {
			text = out
		}
		all.WriteString(text)
	}
	return all.String(), nil
}

// The programs are attached wherever a route to a peer leads, and the route is
// followed back when an interface goes.
func TestKernelFollowsRoutes(t *testing.T) {
	c, a, b, _, db := kernelPair(t)
	c.lab.Wire(a.Host, "side0", b.Host, "side0", 0)
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		if out, err := output(t, way[0].Host, "ip", "route", "add", way[1].Addr().Addr().String()+"/32", "dev", "side0",
			"src", way[0].Addr().Addr().String()); err != nil {
			t.Fatal(out)
		}
	}
	side, err := b.Netlink().LinkByName("side0")
	if err != nil {
		t.Fatal(err)
	}
	db.says(fmt.Sprintf(" %d]", side.Attrs().Index))
	c.awaitKernelPackets(a, b)
	if before, after := side.Attrs().Statistics.RxPackets, received(t, b, "side0"); after <= before {
		t.Error("nothing comes by the new interface")
	}
	if out, err := output(t, b.Host, "ip", "link", "del", "side0"); err != nil {
		t.Fatal(out)
	}
	c.awaitPair(a, b)
	c.awaitKernelPackets(a, b)
	if path := b.status().Backend.DataPath; path != "kernel" {
		t.Errorf("data path %s", path)
	}
}

// Where packets are unwrapped follows the offloads of the uplink: before GRO
// only while no super-packets cross the link.
func TestKernelFollowsOffloads(t *testing.T) {
	c, a, b, _, _ := kernelPair(t)
	for _, step := range []struct {
		tso  string
		want bool
	}{{"off", true}, {"on", false}} {
		if out, err := output(t, b.Host, "ethtool", "-K", netnstest.Uplink, "gro", "on", "tso", step.tso); err != nil {
			t.Fatal(out)
		}
		eventually(t, "the place follows tso "+step.tso, func() error {
			l, err := b.Netlink().LinkByName(netnstest.Uplink)
			if err != nil {
				return err
			}
			if x := l.Attrs().Xdp; (x != nil && x.Attached) != step.want {
				return fmt.Errorf("XDP at the uplink: %+v", x)
			}
			return nil
		})
		c.awaitKernelPackets(a, b)
		c.awaitKernelPackets(b, a)
		copyBulk(t, a.container, b.container)
	}
}

func received(t *testing.T, n *node, link string) uint64 {
	t.Helper()
	l, err := n.Netlink().LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Statistics.RxPackets
}
