package e2e

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// memoryFile is where the node's daemon remembers lease and peers.
func (n *node) memoryFile() string {
	return n.stateFile("network-" + url.PathEscape(prefix))
}

// A host that restarts while etcd is away carries packets all the same, with
// the subnet and the peers that it knew; after that, etcd has the last word.
func TestStartWithoutEtcd(t *testing.T) {
	for _, api := range []string{"3", "2"} {
		t.Run("api"+api, func(t *testing.T) {
			c := newCluster(t, api)
			a, b, _, db := c.pair()
			before := b.subnet()
			db.stop()
			c.etcd.Stop()
			// State that a reboot removes does not matter.
			if err := os.Remove(b.envFile); err != nil {
				t.Fatal(err)
			}
			db = b.join()
			db.says("use the checkpoint of the last run")
			if after := b.subnet(); after != before {
				t.Fatalf("the subnet is %v, was %v", after, before)
			}
			c.awaitPair(a, b)

			c.etcd.Restart()
			third := c.node("c")
			third.join()
			b.awaitPeer(third.subnet(), third.Addr().Addr())
			db.says("renewed lease")
			c.awaitPair(a, b)
		})
	}
}

// A daemon that is killed after a host has joined, and starts while etcd is away, reaches
// that host.
func TestKilledAfterJoin(t *testing.T) {
	c := newCluster(t, "3")
	a, b, da, _ := c.pair()
	eventually(t, "a checkpoint with the peer", func() error {
		text, err := os.ReadFile(a.memoryFile())
		if err == nil && !strings.Contains(string(text), b.subnet().String()) {
			err = fmt.Errorf("the checkpoint is %s", text)
		}
		return err
	})
	da.kill()
	c.etcd.Stop()
	da = a.join()
	da.says("use the checkpoint of the last run")
	c.awaitPair(a, b)
}

// A damaged memory is no memory: the host waits for etcd, as a new one does.
func TestDamagedMemory(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	a.join().stop()
	text, err := os.ReadFile(a.memoryFile())
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(a.memoryFile(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	c.etcd.Stop()
	d := a.launch()
	d.says("ignore the checkpoint of the last run")
	d.says(c.etcdAddr())
	if d.isReady() {
		t.Fatal("ready with a damaged memory and no etcd")
	}
	c.etcd.Restart()
	d.ready()
}

// An operator's slip, or a new and empty etcd: hosts write their keys again, and
// no packet is lost meanwhile.
func TestStoreIsEmptied(t *testing.T) {
	for name, empty := range map[string]func(c *cluster, a, b *node){
		"keys deleted": func(c *cluster, a, b *node) {
			c.keys.del(c.t, "subnets/"+a.leaseKey())
			c.keys.del(c.t, "subnets/"+b.leaseKey())
		},
		"new etcd": func(c *cluster, _, _ *node) {
			c.etcd.Wipe()
			c.etcd.Restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "3")
			a, b, _, _ := c.pair()
			before := c.sharedLeases()
			lost := make(chan error, 1)
			go func() { lost <- allAnswered(t, a.container, b.containerAddr(), 150) }()
			empty(c, a, b)
			eventually(t, "both leases are there again", func() error {
				if after := c.sharedLeases(); fmt.Sprint(after) != fmt.Sprint(before) {
					return fmt.Errorf("leases are %v, were %v", after, before)
				}
				return nil
			})
			if err := <-lost; err != nil {
				t.Errorf("packets were lost: %v", err)
			}
			c.awaitPair(a, b)
		})
	}
}

// allAnswered sends n packets within 20 ms each; ping itself is content with a
// single answer.
func allAnswered(t *testing.T, from *netnstest.Host, to netip.Addr, n int) error {
	t.Helper()
	out, err := from.Command(t.Context(), "ping", "-n", "-q", "-c", fmt.Sprint(n), "-i", "0.02", "-W", "2", to.String()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 0% packet loss") {
		return fmt.Errorf("ping: %v\n%s", err, out)
	}
	return nil
}
