package e2e

import (
	"os"
	"strings"
	"testing"
)

// nodeIDFile is where the host keeps its identity.
func (n *node) nodeIDFile() string { return n.stateFile("node-id") }

func (n *node) nodeID() string {
	n.t.Helper()
	id, err := os.ReadFile(n.nodeIDFile())
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.TrimSpace(string(id))
}

// A host with the address of a living one does not start, and its error names
// the other. A copy of a living host's disk gets a new identity. With either
// API the living host's lease is unchanged.
func TestIdentity(t *testing.T) {
	for _, api := range []string{"3", "2"} {
		t.Run("api"+api, func(t *testing.T) {
			c := newCluster(t, api)
			a, b := c.node("a"), c.node("b")
			a.join()
			before := shared(c.leases()[a.leaseKey()])
			id, err := os.ReadFile(a.nodeIDFile())
			if err != nil {
				t.Fatal(err)
			}

			newcomer := b.launch("-public-ip=" + a.Addr().Addr().String())
			if code := newcomer.wait().ExitCode(); code != 1 {
				t.Errorf("the newcomer ended with exit code %d, want 1", code)
			}
			newcomer.says("another living host has this public IP: node " + string(id[:32]))

			if err := os.WriteFile(b.nodeIDFile(), id, 0o644); err != nil {
				t.Fatal(err)
			}
			b.join().says("disk is a copy")
			if own, err := os.ReadFile(b.nodeIDFile()); err != nil || string(own) == string(id) {
				t.Errorf("the copy's identity is %s, %v", own, err)
			}
			if b.subnet() == a.subnet() {
				t.Errorf("both have %v", a.subnet())
			}
			if after := shared(c.leases()[a.leaseKey()]); after != before {
				t.Errorf("the living host's lease is %s, was %s", after, before)
			}
		})
	}
}
