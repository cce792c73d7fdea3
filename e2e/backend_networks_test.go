package e2e

import (
	"errors"
	"testing"
)

// second is another network of the same cluster, with other keys.
type second struct {
	*cluster
	name string // of the folder of its keys, below the first one's
}

func newSecond(c *cluster, name, config string) *second {
	c.t.Helper()
	c.keys.put(c.t, name+"/config", config, 0)
	return &second{c, name}
}

// on is the second daemon's place on a host that has one already.
func (s *second) on(first *node) *node {
	s.t.Helper()
	return s.nodeOn(first.Host, "-etcd-prefix="+prefix+"/"+s.name, "-status-addr=127.0.0.1:0")
}

// Two networks on one host: neither touches the other's device, routes or file.
func TestTwoNetworks(t *testing.T) {
	for _, test := range []struct {
		name, first, backend string
		// strict: packets of the other network are refused by their source.
		strict bool
	}{
		{"vxlan", `{"Type": "vxlan"}`, `{"Type": "vxlan", "VNI": 2}`, false},
		{"udp", `{"Type": "vxlan"}`, `{"Type": "udp", "Port": 8290}`, true},
		{"udp beside udp", `{"Type": "udp"}`, `{"Type": "udp", "Port": 8290}`, true},
		{"wireguard", `{"Type": "vxlan"}`, `{"Type": "wireguard"}`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(test.first)
			a, b := c.node("a"), c.node("b")
			c.joinPair(a, b)
			other := newSecond(c, "second", `{"Network": "10.6.0.0/16", "Backend": `+test.backend+`}`)
			a2, b2 := other.on(a), other.on(b)
			da2 := a2.join()
			b2.join()
			a2.addContainerOn("docker1")
			b2.addContainerOn("docker1")
			c.awaitPair(a2, b2)
			c.awaitPair(a, b)
			da2.kill()
			a2.join()
			c.awaitPair(a2, b2)
			c.awaitPair(a, b)
			if test.strict {
				if err := ping(t, a.container, b2.containerAddr()); err == nil {
					t.Error("a packet of one network reached a container of the other")
				}
			}
		})
	}
}

// A network that would share the device of another refuses to start, and does
// no harm.
func TestTwoNetworksOneDevice(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "vxlan"}`)
	a, b := c.node("a"), c.node("b")
	c.joinPair(a, b)
	d := newSecond(c, "second", `{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}}`).on(a).launch()
	if code := d.wait().ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	d.says("networks on one host need a Backend.VNI each")
	if err := errors.Join(ping(t, a.container, b.containerAddr()), ping(t, b.container, a.containerAddr())); err != nil {
		t.Error(err)
	}
}
