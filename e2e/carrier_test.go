package e2e

import "testing"

// carrier is a way in which hosts carry the containers' packets.
type carrier struct {
	name, backend string
	args          []string
	// staysUp: the kernel carries packets without the daemon.
	staysUp bool
	// device is the tunnel's; "" if there is none.
	device string
}

// carriers are all ways that this kernel has.
func carriers(t *testing.T) []carrier {
	t.Helper()
	all := []carrier{
		{name: "vxlan", backend: `{"Type": "vxlan"}`, staysUp: true, device: "flannel.1"},
		{name: "host-gw", backend: `{"Type": "host-gw"}`, staysUp: true},
	}
	for _, path := range dataPaths {
		all = append(all, carrier{
			name: "udp " + path, backend: `{"Type": "udp"}`, args: []string{dataPathFlag + path}, staysUp: path == "kernel", device: "flannel0",
		})
	}
	for _, path := range wireguards(t) {
		all = append(all, carrier{
			name: "wireguard " + path, backend: `{"Type": "wireguard", "Datapath": "` + path + `"}`, staysUp: path == "kernel", device: guardDevice,
		})
	}
	return all
}

// pairOf starts two hosts that carry packets in one way.
func pairOf(t *testing.T, w carrier, args ...string) (c *cluster, a, b *node, da, db *daemon) {
	t.Helper()
	c = newCluster(t, "3")
	c.use(w.backend)
	args = append(args, w.args...)
	a, b = c.node("a", args...), c.node("b", args...)
	da, db = c.joinPair(a, b)
	return c, a, b, da, db
}
