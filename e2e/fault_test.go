package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// memoryFile is where the node's daemon remembers lease and peers.
func (n *node) memoryFile() string {
	return filepath.Join(filepath.Dir(filepath.Dir(n.envFile)), "state", "network")
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
			// What does not outlive a reboot does not matter.
			if err := os.Remove(b.envFile); err != nil {
				t.Fatal(err)
			}
			db = b.join()
			db.says("the store is away")
			if after := b.subnet(); after != before {
				t.Fatalf("the subnet is %v, was %v", after, before)
			}
			c.meet(a, b)

			c.etcd.Restart()
			third := c.node("c")
			third.join()
			b.knows(third.subnet(), third.Addr().Addr())
			db.says("renewed lease")
			c.meet(a, b)
		})
	}
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
	d.says("ignore what was remembered")
	d.says(c.etcdAddr())
	if d.isReady() {
		t.Fatal("ready with a damaged memory and no etcd")
	}
	c.etcd.Restart()
	d.ready()
}
