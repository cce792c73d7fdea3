package e2e

import "testing"

// systemd gets messages before and after the program is ready, and with a
// watchdog that it is alive. It also gets them while etcd is away, because a
// restart would not help.
func TestSystemdIsTold(t *testing.T) {
	c := newCluster(t, "3")
	c.etcd.Stop()
	a := c.node("a")
	d := a.launch()
	d.awaitMessage("STATUS=waiting for the store")
	d.awaitMessage("WATCHDOG=1")
	c.etcd.Restart()
	d.ready()
	d.awaitMessage("STATUS=subnet " + a.subnet().String() + ", 0 peers, data path ")
	c.etcd.Pause()
	for range 5 {
		d.awaitMessage("WATCHDOG=1")
	}
	c.etcd.Resume()
	d.stop()
	d.awaitMessage("STOPPING=1")
}
