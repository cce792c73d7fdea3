package e2e

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/netnstest/packetfault"
)

// The first command of doctor ends the fault, with the encapsulation of each path. The
// programs of the kernel data path cut super-packets of UDP.
func TestOffloadFix(t *testing.T) {
	vxlan := packetfault.Header{Offset: 14 + 20 + 8 + 8 + 14}
	for name, tt := range map[string]struct {
		backend, arg string
		fault        []packetfault.Part
		layer, fix   string
	}{
		"super-packets over VXLAN": {`{"Type": "vxlan"}`, "", []packetfault.Part{packetfault.SuperPacket()},
			"segmentation", "ethtool -K eth0 tx-udp_tnl-csum-segmentation off"},
		"super-packets of the programs": {`{"Type": "udp"}`, dataPathFlag + "kernel", []packetfault.Part{packetfault.SuperPacket()},
			"tcp-segmentation", "ethtool -K eth0 tx-udp_tnl-segmentation off"},
		"super-packets of the process": {`{"Type": "udp"}`, dataPathFlag + "offload", []packetfault.Part{packetfault.SuperPacket()},
			"segmentation", "ethtool -K eth0 tx-udp-segmentation off"},
		"super-packets of WireGuard": {`{"Type": "wireguard", "Datapath": "userspace"}`, "", []packetfault.Part{packetfault.SuperPacket()},
			"segmentation", "ethtool -K eth0 tx-udp-segmentation off"},
		"checksums of TCP": {`{"Type": "vxlan"}`, "", []packetfault.Part{packetfault.Protocol(vxlan, unix.IPPROTO_TCP), packetfault.ChecksumLeft(vxlan)},
			"checksum", "ethtool -K flannel.1 tx-checksum-ip-generic off"},
	} {
		t.Run(name, func(t *testing.T) {
			var args []string
			if tt.arg != "" {
				args = append(args, tt.arg)
			}
			c, a, b, _ := offloadPair(t, offloadPath{backend: tt.backend}, args...)
			ofProcess := strings.HasSuffix(tt.fix, " tx-udp-segmentation off")
			if netnstest.LacksSoftwareTrains(t) && tt.layer == "segmentation" {
				if ofProcess {
					netnstest.SoftwareTrains.Skip(t, "the uplink has none")
				}
				tt.layer = "tcp-segmentation"
			}
			if ofProcess && netnstest.LacksUSO(t) {
				tt.layer = "tcp-segmentation" // datagrams come to the process one by one
			}
			packetfault.Plant(t, c.lab.Router(), portOfA, append(tt.fault, packetfault.Drop())...)
			b.offloadFaults("from_peer " + tt.layer)
			a.offloadFix("to_peer "+tt.layer, tt.fix)
			a.shell(tt.fix)
			a.offloadFaults()
			b.offloadFaults()
			eventually(t, "a transfer passes", func() error { return transfer(t, a.container, b.container, b.containerAddr()) })
		})
	}
}

// offloadFix waits until the one fault of a node has a command.
func (n *node) offloadFix(fault, command string) {
	n.t.Helper()
	eventually(n.t, "the command is "+command, func() error {
		if fix := n.offloadFaults(fault); !strings.HasSuffix(fix, command) {
			return fmt.Errorf("%s", fix)
		}
		return nil
	})
}

// The same over IPv6.
func TestOffloadFixOfIPv6(t *testing.T) {
	for backend, want := range map[string]struct{ layer, feature string }{
		`{"Type": "vxlan"}`: {"segmentation", "tx-udp_tnl-csum-segmentation"},
		`{"Type": "udp"}`:   {"tcp-segmentation", "tx-udp_tnl-segmentation"},
	} {
		t.Run(backend, func(t *testing.T) {
			if want.layer == "segmentation" && netnstest.LacksSoftwareTrains(t) {
				want.layer = "tcp-segmentation"
			}
			c := newCluster(t, "3")
			c.configure(familyConfig("6", backend))
			a, b := c.dualNode("a", "-offload-probe-interval=1s"), c.dualNode("b", "-offload-probe-interval=1s")
			a.join()
			b.join()
			packetfault.Plant(t, c.lab.Router(), portOfA, packetfault.SuperPacket(), packetfault.Drop())
			fix := "ethtool -K " + netnstest.Uplink + " " + want.feature + " off"
			a.offloadFix("to_peer "+want.layer, fix)
			a.shell(fix)
			a.offloadFaults()
		})
	}
}
