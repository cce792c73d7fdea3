package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/netnstest/packetfault"
)

// mendable is a way to carry packets, and the faults that a switch ends there.
type mendable struct {
	path   offloadPath
	args   []string
	faults map[string]func(packetfault.Header) []packetfault.Part
}

const superPacketsOfProcess = "super-packets of the process"

// mendables are those of the kernel's encapsulation, and of this process.
func mendables() (all []mendable) {
	superPackets := func(packetfault.Header) []packetfault.Part { return []packetfault.Part{packetfault.SuperPacket()} }
	for _, p := range offloadPaths {
		all = append(all, mendable{path: p, faults: map[string]func(packetfault.Header) []packetfault.Part{
			"checksums":     func(h packetfault.Header) []packetfault.Part { return []packetfault.Part{packetfault.ChecksumLeft(h)} },
			"super-packets": superPackets,
			"super-packets of TCP": func(h packetfault.Header) []packetfault.Part {
				return []packetfault.Part{packetfault.SuperPacket(), packetfault.Protocol(h, unix.IPPROTO_TCP)}
			},
		}})
	}
	byProcess := map[string]func(packetfault.Header) []packetfault.Part{superPacketsOfProcess: superPackets}
	return append(all,
		mendable{path: offloadPath{backend: `{"Type": "udp"}`}, args: []string{dataPathFlag + "offload"}, faults: byProcess},
		mendable{path: offloadPath{backend: `{"Type": "wireguard", "Datapath": "userspace"}`}, faults: byProcess})
}

// With -offload-repair a connection gets nine tenths of a link's rate at least, compared
// with the link without the fault. netem sets the rate, since a link without one is as
// fast as the processor.
func TestOffloadRepairMends(t *testing.T) {
	netnstest.Require(t)
	probe := netnstest.New(t).Host("probe")
	if out, err := output(t, probe, "tc", slowLink("eth0")...); err != nil {
		if !strings.Contains(out, "qdisc kind is unknown") {
			t.Fatalf("tc: %v\n%s", err, out)
		}
		netnstest.Netem.Missing(t, out)
		return
	}
	for _, m := range mendables() {
		for name, condition := range m.faults {
			t.Run(m.path.backend+" "+name, func(t *testing.T) {
				if name == superPacketsOfProcess && netnstest.LacksSoftwareTrains(t) {
					netnstest.SoftwareTrains.Skip(t, "the uplink has none")
				}
				c, a, b, _ := offloadPair(t, m.path, append(m.args, "-offload-repair")...)
				port := fmt.Sprintf("port%d", b.Addr().Addr().As4()[3])
				if out, err := output(t, c.lab.Router(), "tc", slowLink(port)...); err != nil {
					t.Fatalf("tc: %v\n%s", err, out)
				}
				healthy := throughput(t, a.container, b.container, b.containerAddr())
				packetfault.Plant(t, c.lab.Router(), portOfA, append(condition(m.path.ip), packetfault.Drop())...)
				s := a.repaired()
				eventually(t, "a connection is as fast as before", func() error {
					mended := throughput(t, a.container, b.container, b.containerAddr())
					t.Logf("%.1f Mb/s, mended by %s of %s %.1f Mb/s: %.2f", healthy/1e6, s.Feature, s.Device, mended/1e6, mended/healthy)
					if mended < 0.9*healthy {
						return fmt.Errorf("%.1f Mb/s, mended %.1f Mb/s", healthy/1e6, mended/1e6)
					}
					return nil
				})
			})
		}
	}
}

// slowLink has the arguments of tc that limit what a device sends.
func slowLink(device string) []string {
	return strings.Fields("qdisc add dev " + device + " root netem rate 40mbit limit 100")
}

// throughput is that of one connection of TCP, in bits per second.
func throughput(t *testing.T, from, to *netnstest.Host, addr netip.Addr) float64 {
	t.Helper()
	out, err := iperf3(t, from, to, addr, "-t", "3", "-J")
	var report struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(out), &report)
	}
	if err != nil {
		t.Fatal(err)
	}
	return report.End.Received.Rate
}
