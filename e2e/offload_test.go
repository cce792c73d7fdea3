package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/netnstest/packetfault"
)

// offloadFault has the fields of a peer's offload fault that the tests read.
type offloadFault struct {
	Direction string `json:"direction"`
	Layer     string `json:"layer"`
	Fix       string `json:"fix"`
}

// offloadPath is a backend, and the containers' IP header in its frames.
type offloadPath struct {
	backend string
	ip      packetfault.Header
}

var offloadPaths = []offloadPath{
	{`{"Type": "vxlan"}`, packetfault.Header{Offset: 14 + 20 + 8 + 8 + 14}},
	{`{"Type": "host-gw"}`, packetfault.Header{Offset: 14}},
	{`{"Type": "udp"}`, packetfault.Header{Offset: 14 + 20 + 8}},
}

// portOfA is the switch's port to the first host after etcd's.
const portOfA = "port2"

// offloadPair starts two hosts that probe offloads each second.
func offloadPair(t *testing.T, p offloadPath, args ...string) (c *cluster, a, b *node, da *daemon) {
	t.Helper()
	c = newCluster(t, "3")
	c.use(p.backend)
	args = append(args, "-offload-probe-interval=1s")
	a, b = c.node("a", args...), c.node("b", args...)
	da, _ = c.joinPair(a, b)
	return c, a, b, da
}

// offloadFaults waits until a node's peer has these faults, as "direction layer", and
// returns the last fix. Without any, the offloads must have been checked.
func (n *node) offloadFaults(want ...string) (fix string) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("%s has the faults %q", n.Name(), want), func() error {
		s, err := n.readStatus()
		if err != nil {
			return err
		}
		var got []string
		for _, p := range s.Backend.Peers {
			if len(want) == 0 && !p.Checked {
				return fmt.Errorf("the offloads to %v are not checked", p.Subnet)
			}
			for _, f := range p.OffloadFaults {
				got = append(got, f.Direction+" "+f.Layer)
				fix = f.Fix
			}
		}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	return fix
}

// A wire that loses super-packets of one direction is found by both hosts. Status,
// metrics, events, /readyz and doctor name it, with the command that ends it.
func TestOffloadFault(t *testing.T) {
	for _, p := range offloadPaths {
		t.Run(p.backend, func(t *testing.T) {
			c, a, b, _ := offloadPair(t, p)
			fault := packetfault.Plant(t, c.lab.Router(), portOfA, packetfault.ChecksumLeft(p.ip), packetfault.Drop())
			fix := a.offloadFaults("to_peer checksum")
			b.offloadFaults("from_peer checksum")
			if got := a.finds(c, "offload faults", "fail", "in this direction only"); got != fix || !strings.HasPrefix(fix, "ethtool -K ") {
				t.Errorf("doctor has the fix %q, status %q", got, fix)
			}
			a.readiness(200, "warning: offload fault (checksum) of packets to 1 of 1 peers")
			metric := fmt.Sprintf(`flannel_peer_offload_fault{direction="to_peer",layer="checksum",subnet=%q} 1`, b.subnet())
			if text := a.metrics(); !strings.Contains(text, metric) {
				t.Errorf("no metric %s", metric)
			}
			eventually(t, "events have the fault", func() error {
				if text := a.statusText(); !strings.Contains(text, "has an offload fault, layer checksum, of packets to it") {
					return fmt.Errorf("%s", text)
				}
				return nil
			})
			a.shell(fix)
			a.offloadFaults()
			b.offloadFaults()
			if err := transfer(t, a.container, b.container, b.containerAddr()); err != nil {
				t.Errorf("after %q: %v", fix, err)
			}
			fault.Remove()
		})
	}
}

// A fault of the packets of one family is one of the peers in that family alone.
func TestOffloadFaultOfIPv6(t *testing.T) {
	for _, tt := range []struct {
		backend string
		ip      packetfault.Header
		device  string
	}{
		{`{"Type": "vxlan"}`, packetfault.Header{Offset: 14 + 40 + 8 + 8 + 14, IPv6: true}, "flannel-v6.1"},
		{`{"Type": "host-gw"}`, packetfault.Header{Offset: 14, IPv6: true}, netnstest.Uplink},
	} {
		t.Run(tt.backend, func(t *testing.T) {
			c := newCluster(t, "3")
			c.configure(familyConfig("46", tt.backend))
			a, b := c.dualNode("a", "-offload-probe-interval=1s"), c.dualNode("b", "-offload-probe-interval=1s")
			a.join()
			b.join()
			fault := packetfault.Plant(t, c.lab.Router(), portOfA, packetfault.ChecksumLeft(tt.ip), packetfault.Drop())
			fix := a.offloadFaults("to_peer checksum")
			if want := "ethtool -K " + tt.device + " tx-checksum-ip-generic off"; fix != want {
				t.Errorf("the fix is %q, want %q", fix, want)
			}
			b.offloadFaults("from_peer checksum")
			metric := fmt.Sprintf(`flannel_peer_offload_fault{direction="to_peer",layer="checksum",subnet=%q} 1`, b.ipv6Subnet())
			if text := a.metrics(); !strings.Contains(text, metric) {
				t.Errorf("no metric %s", metric)
			}
			a.shell(fix)
			a.offloadFaults()
			fault.Remove()
		})
	}
}

// With -offload-repair the switch that ends the fault is off, and the others are on. A
// start without the flag or without probes turns it on, and so does cleanup, also after
// the daemon was killed.
func TestOffloadRepair(t *testing.T) {
	endings := map[string]func(a *node, d *daemon){
		offloadPaths[0].backend: func(a *node, d *daemon) { d.stop(); a.join("-offload-repair=false") },
		offloadPaths[1].backend: func(a *node, d *daemon) {
			d.kill()
			args := []string{"cleanup", "-subnet-file=" + a.envFile, "-state-dir=" + a.stateFile("")}
			for range 2 { // it has turned nothing the first time
				a.commandSays(0, "would remove offload repair ethtool -K eth0 ", append(args, "-dry-run")...)
			}
			a.commandSays(0, "removed offload repair ethtool -K eth0 ", args...)
			a.commandSays(0, "nothing to remove", args...)
		},
		offloadPaths[2].backend: func(a *node, d *daemon) {
			d.kill()
			a.join("-offload-repair=false", "-offload-probe-interval=0")
		},
	}
	for _, p := range offloadPaths {
		t.Run(p.backend, func(t *testing.T) {
			c, a, b, da := offloadPair(t, p, "-offload-repair")
			before := a.kernelOffloads(t)
			fault := packetfault.Plant(t, c.lab.Router(), portOfA, packetfault.SuperPacket(), packetfault.Drop())
			turned := a.repaired()
			off := turned.Device + " " + turned.Feature
			b.offloadFaults()
			// The host's own packets, such as those to etcd, may still meet the fault.
			eventually(t, "a transfer with "+off+" off does not meet the fault", func() error {
				before := fault.Hits()
				if err := transfer(t, a.container, b.container, b.containerAddr()); err != nil {
					return err
				}
				if met := fault.Hits() - before; met > 0 {
					return fmt.Errorf("%d packets do", met)
				}
				return nil
			})
			endings[p.backend](a, da)
			eventually(t, "the switch is on", func() error {
				if after := a.kernelOffloads(t); after != before {
					return fmt.Errorf("the offloads are\n%s, were\n%s", after, before)
				}
				return nil
			})
		})
	}
}

// offloadSwitch has the fields of the switch that is off.
type offloadSwitch struct {
	Device  string `json:"device"`
	Feature string `json:"feature"`
}

// repaired waits until a switch is off and the node's one peer has no fault.
func (n *node) repaired() (s offloadSwitch) {
	n.t.Helper()
	eventually(n.t, "a switch is off and the fault is gone", func() error {
		got, err := n.readStatus()
		if err != nil {
			return err
		}
		s = got.Backend.OffloadSwitch
		if s.Feature == "" || len(got.Backend.Peers) != 1 || len(got.Backend.Peers[0].OffloadFaults) > 0 {
			return fmt.Errorf("%+v", got.Backend)
		}
		return nil
	})
	return s
}

// A host without the probes has no port in its lease, and listens at none.
func TestOffloadProbesOff(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "vxlan"}`)
	for _, tt := range []struct {
		node *node
		want bool
	}{{c.node("a"), true}, {c.node("b", "-offload-probe-interval=0"), false}} {
		tt.node.join()
		if value := c.leases()[tt.node.leaseKey()]; strings.Contains(value, `"OffloadPort":8287`) != tt.want {
			t.Errorf("the lease of %s is %s", tt.node.Name(), value)
		}
		eventually(t, "sockets are as wanted", func() error {
			out, err := output(t, tt.node.Host, "ss", "-Hlntu")
			if err == nil && (strings.Count(out, ":8287 ") == 2 && strings.Contains(out, ":8288 ")) != tt.want {
				err = fmt.Errorf("%s listens at\n%s", tt.node.Name(), out)
			}
			return err
		})
	}
}

// kernelOffloads lists the uplink's offloads.
func (n *node) kernelOffloads(t *testing.T) string {
	t.Helper()
	out, err := output(t, n.Host, "ethtool", "-k", "eth0")
	if err != nil {
		t.Fatalf("ethtool: %v\n%s", err, out)
	}
	return out
}
