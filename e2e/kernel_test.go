package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// awaitKernelLease waits until the node's lease publishes the kernel data path.
func (c *cluster) awaitKernelLease(n *node) {
	c.t.Helper()
	eventually(c.t, "the lease of "+n.Name()+" tells the kernel data path", func() error {
		if value := c.leases()[n.leaseKey()]; !strings.Contains(value, `"DataPath":"kernel"`) {
			return fmt.Errorf("it is %s", value)
		}
		return nil
	})
}

// pinsOf are the folders in which the node's programs are pinned.
func pinsOf(t *testing.T, n *node) []string {
	t.Helper()
	dirs, err := n.Pins()
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// kernelPair starts two hosts whose leases publish the kernel data path. args are
// further flags of both daemons.
func kernelPair(t *testing.T, args ...string) (c *cluster, a, b *node, da, db *daemon) {
	t.Helper()
	c = newCluster(t, "3")
	args = append([]string{dataPathFlag + "kernel"}, args...)
	a, b = c.node("a", args...), c.node("b", args...)
	da, db = c.joinPair(a, b)
	c.awaitKernelLease(a)
	c.awaitKernelLease(b)
	c.awaitKernelPackets(a, b)
	c.awaitKernelPackets(b, a)
	return c, a, b, da, db
}

// awaitKernelPackets waits until packets from a to b bypass a's device. The device's
// statistics do not count packets of the programs.
func (c *cluster) awaitKernelPackets(a, b *node) {
	c.t.Helper()
	c.awaitKernelPacketsFrom("flannel0", a, b)
}

func (c *cluster) awaitKernelPacketsFrom(device string, a, b *node) {
	c.t.Helper()
	c.awaitInKernel(device, a, b.containerAddr())
}

// awaitInKernel waits until pings from a's container bypass the device.
func (c *cluster) awaitInKernel(device string, a *node, to netip.Addr) {
	c.t.Helper()
	sent := func() uint64 {
		l, err := a.Netlink().LinkByName(device)
		if err != nil {
			c.t.Fatal(err)
		}
		return l.Attrs().Statistics.TxPackets
	}
	eventually(c.t, fmt.Sprintf("packets of %s to %v stay in the kernel", a.Name(), to), func() error {
		before := sent()
		if err := ping(c.t, a.container, to); err != nil {
			return err
		}
		if after := sent(); after != before {
			return fmt.Errorf("%d packets went by the device", after-before)
		}
		return nil
	})
}

// With the daemon dead, stopped or replaced, packets keep flowing, and every
// one arrives: also while the next run takes over.
func TestKernelRestart(t *testing.T) {
	for name, end := range map[string]func(*daemon){"killed": (*daemon).kill, "stopped": (*daemon).stop} {
		t.Run(name, func(t *testing.T) {
			c, a, b, _, db := kernelPair(t)
			before := b.subnet()
			pings := floodPing(t, a.container, b.containerAddr())
			stream := startStream(t, a.container, b.container)
			stream.progresses(t)
			end(db)
			stream.progresses(t)
			db = b.join()
			db.says("taken over from an earlier run")
			stream.progresses(t)
			c.awaitKernelLease(b)
			stream.progresses(t)
			if text := <-pings; !strings.Contains(text, " 0% packet loss") {
				t.Errorf("while the daemon was %s and started again:\n%s", name, text)
			}
			if after := b.subnet(); after != before {
				t.Errorf("the subnet is %v, was %v", after, before)
			}
		})
	}
}

// "ip netns exec" gives each command its own /sys, which ends with the command.
// The programs must stay nevertheless.
func TestKernelRestartInNamespaceByName(t *testing.T) {
	c := newCluster(t, "3")
	a, b := c.node("a", dataPathFlag+"kernel"), c.node("b", dataPathFlag+"kernel")
	join := func() *daemon {
		d := launchCommand(t, b.Host, "ip", append([]string{"netns", "exec", b.Netns(), programs.flannel}, b.args...)...)
		d.ready()
		return d
	}
	a.join()
	db := join()
	a.addContainer()
	b.addContainer()
	c.awaitKernelLease(a)
	c.awaitKernelLease(b)
	c.awaitKernelPackets(a, b)
	db.kill()
	if err := ping(t, a.container, b.containerAddr()); err != nil {
		t.Errorf("with the daemon dead: %v", err)
	}
	if pins := pinsOf(t, b); len(pins) != 1 {
		t.Errorf("pins in %v, want one folder", pins)
	}
	join().says("taken over from an earlier run")
	c.awaitKernelPackets(a, b)
}

// The links of the programs end with their device. The daemon creates all of it
// again, and packets are in the kernel again.
func TestKernelDeviceIsDeleted(t *testing.T) {
	c, a, b, _, _ := kernelPair(t)
	if out, err := output(t, a.Host, "ip", "link", "del", "flannel0"); err != nil {
		t.Fatal(out)
	}
	eventually(t, "the device is there again", func() error {
		if !a.HasLink("flannel0") {
			return errors.New("it is not")
		}
		return nil
	})
	c.awaitPair(a, b)
	c.awaitKernelPackets(a, b)
	c.awaitKernelPackets(b, a)
	if pins := pinsOf(t, a); len(pins) != 1 {
		t.Errorf("pins at %v, want one folder", pins)
	}
}

// A start with another data path or another backend removes all of it.
func TestKernelIsRemoved(t *testing.T) {
	_, a, b, da, db := kernelPair(t)
	if len(pinsOf(t, a)) != 1 {
		t.Fatalf("pins at %v, want one folder", pinsOf(t, a))
	}
	da.stop()
	if len(pinsOf(t, a)) != 1 || !a.HasLink("flannel0") {
		t.Fatal("the kernel path did not stay")
	}
	a.join(dataPathFlag + "offload")
	if pins := pinsOf(t, a); len(pins) != 0 {
		t.Errorf("still pinned: %v", pins)
	}
	if value := a.status().Backend.DataPath; value != "offload" {
		t.Errorf("data path %s", value)
	}
	if err := ping(t, a.container, b.containerAddr()); err != nil {
		t.Error(err)
	}
	db.stop()
	if _, err := os.Stat("/sys/fs/bpf/flannel"); errors.Is(err, os.ErrNotExist) {
		t.Error("the other host's pins are gone, too")
	}
}

// Two networks of one host are both in the kernel and share an uplink. The
// removal of one keeps the programs of the other.
func TestKernelTwoNetworks(t *testing.T) {
	c, a, b, _, _ := kernelPair(t)
	other := newSecond(c, "second", `{"Network": "10.6.0.0/16", "Backend": {"Type": "udp", "Port": 8290}}`)
	a2, b2 := other.on(a), other.on(b)
	da2 := a2.join(dataPathFlag + "kernel")
	b2.join(dataPathFlag + "kernel")
	a2.addContainerOn("docker1")
	b2.addContainerOn("docker1")
	both := func() {
		t.Helper()
		for _, way := range [][2]*node{{a, b}, {b, a}} {
			c.awaitKernelPackets(way[0], way[1])
		}
		for _, way := range [][2]*node{{a2, b2}, {b2, a2}} {
			c.awaitKernelPacketsFrom("flannel1", way[0], way[1])
		}
	}
	both()
	if pins := pinsOf(t, a); len(pins) != 2 {
		t.Errorf("pins at %v, want two folders", pins)
	}
	if err := ping(t, a.container, b2.containerAddr()); err == nil {
		t.Error("a packet of one network reached a container of the other")
	}
	da2.kill()
	da2 = a2.join(dataPathFlag + "kernel")
	da2.says("taken over from an earlier run")
	both()
	da2.stop()
	a2.join(dataPathFlag + "offload")
	c.awaitPair(a2, b2)
	c.awaitKernelPackets(a, b)
	if pins := pinsOf(t, a); len(pins) != 1 {
		t.Errorf("pins at %v, want one folder", pins)
	}
}
