package e2e

import "testing"

// systemd hears from a program that is well, before it is ready and after, what
// it does and, with a watchdog, that it is alive; also while etcd is away, since
// a restart would not bring that back.
func TestSystemdIsTold(t *testing.T) {
	c := newCluster(t, "3")
	c.etcd.Stop()
	a := c.node("a")
	d := a.launch()
	d.told("STATUS=waiting for the store")
	d.told("WATCHDOG=1")
	c.etcd.Restart()
	d.ready()
	d.told("STATUS=subnet " + a.subnet().String() + ", 0 peers, data path ")
	c.etcd.Pause()
	for range 5 {
		d.told("WATCHDOG=1")
	}
	c.etcd.Resume()
	d.stop()
	d.told("STOPPING=1")
}
