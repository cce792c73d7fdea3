package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/netnstest/packetfault"
)

// Hosts carry connections over a link that loses, delays, repeats and reorders
// packets, in each way, and their probes find no fault of offloads.
func TestBadLink(t *testing.T) {
	for _, w := range carriers(t) {
		t.Run(w.name, func(t *testing.T) {
			c, a, b, da, db := pairOf(t, w, "-offload-probe-interval=1s")
			for _, n := range []*node{a, b} {
				c.spoilLink(n)
			}
			before := map[*node]int{a: a.accepted(), b: b.accepted()}
			copyBulk(t, a.container, b.container)
			copyBulk(t, b.container, a.container)
			for _, n := range []*node{a, b} {
				eventually(t, n.Name()+" is probed", func() error {
					if got := n.accepted() - before[n]; got < 8 {
						return fmt.Errorf("%d probes of TCP", got)
					}
					return nil
				})
			}
			for _, d := range []*daemon{da, db} {
				if strings.Contains(d.log.String(), "offload fault") {
					t.Error("a fault of offloads is reported")
				}
			}
		})
	}
}

// spoilLink makes the link of a host a bad one in both directions. A link of a kernel
// without netem only loses packets.
func (c *cluster) spoilLink(n *node) {
	c.t.Helper()
	port := fmt.Sprintf("port%d", n.Addr().Addr().As4()[3])
	for h, device := range map[*netnstest.Host]string{n.Host: netnstest.Uplink, c.lab.Router(): port} {
		out, err := output(c.t, h, "tc", strings.Fields("qdisc add dev "+device+" root netem delay 2ms 1ms loss 1% duplicate 1% reorder 5%")...)
		switch {
		case err == nil:
		case strings.Contains(out, "qdisc kind is unknown"):
			netnstest.Netem.Missing(c.t, out)
			packetfault.Plant(c.t, h, device, packetfault.Randomly(1), packetfault.Drop())
		default:
			c.t.Fatalf("tc: %v\n%s", err, out)
		}
	}
}

// accepted counts the connections that a host's own sockets have accepted. Those for
// probes of offloads are the only ones of a host that other hosts reach.
func (n *node) accepted() (count int) {
	n.t.Helper()
	err := n.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names, values []string
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); fields[0] == "Tcp:" {
				names, values = values, fields
			}
		}
		for i, name := range names {
			if name == "PassiveOpens" {
				_, err := fmt.Sscan(values[i], &count)
				return err
			}
		}
		return fmt.Errorf("no count of connections in %q", text)
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return count
}
