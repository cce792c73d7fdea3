package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// What others write to the store, and to files of variables, gives no orders to the
// terminal of an operator.
func TestTextOfOthers(t *testing.T) {
	c := newCluster(t, "3")
	n := c.node("a", dataPathFlag+"offload")
	const evil = `\u001b]0;owned\u0007\u001b[2J\r`
	c.keys.put(t, "subnets/10.5.201.0-24", fmt.Sprintf(`{"PublicIP":"192.168.77.201","NodeID":"%[1]s","Hostname":"%[1]s"}`, evil), 0)
	c.keys.put(t, "subnets/x\x1b[2J", "x", 0)
	c.keys.put(t, "subnets/10.5.202.0-24", `{"PublicIP":"\u001b[2J"}`, 0)
	d := n.join()
	for _, line := range []string{"leases -etcd-endpoints=" + c.etcd.URL(), "leases -json -etcd-endpoints=" + c.etcd.URL(), "peers", "status", "ping 10.5.201.1", "leases -etcd-endpoints=http://x\x1b[2J:1 -timeout=300ms"} {
		if out, _ := n.command(strings.Fields(line)...); strings.ContainsAny(out, "\x1b\r\x07") {
			t.Errorf("flannel %s: %q", line, out)
		}
	}
	if text := d.log.String(); strings.ContainsAny(text, "\x1b\r\x07") {
		t.Errorf("log: %q", text)
	}
}
