package kube

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coreos/flannel/e2e/kube/controlplane"
)

var (
	faultRounds = flag.Int("fault-rounds", 12, "TestFaults: how many; the default has each fault")
	faultSeed   = flag.Uint64("fault-seed", 1, "TestFaults: of the order of faults")
)

// After each of many faults, the pods of all nodes reach each other, and the Nodes
// have the annotations of before.
func TestFaults(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	nodes, daemons := r.join("n1", "n2")
	faults := []struct {
		name  string
		raise func(victim int)
	}{
		{"daemon killed", func(i int) {
			daemons[i].kill()
			daemons[i] = nodes[i].launch().ready()
		}},
		{"API server killed", func(int) {
			r.control.Kill("kube-apiserver")
			r.control.StartAPIServer()
		}},
		{"etcd killed", func(int) {
			r.control.Kill("etcd")
			r.control.StartEtcd()
			r.control.AwaitReady()
		}},
		{"Node deleted and created", func(i int) {
			r.control.Delete("/api/v1/nodes/" + nodes[i].name)
			r.control.AddNode(nodes[i].name, nodes[i].gateway().Masked().String())
		}},
		{"annotations removed", func(i int) {
			r.control.Annotate(nodes[i].name, map[string]any{prefix + "kube-subnet-manager": nil, prefix + "public-ip": nil})
		}},
		{"damaged annotation", func(i int) {
			r.control.Annotate(nodes[i].name, map[string]any{prefix + "backend-data": "{"})
		}},
		{"device deleted", func(i int) { nodes[i].run("ip", "link", "del", "flannel.1") }},
		{"route deleted", func(i int) { nodes[i].run("ip", "route", "del", nodes[1-i].gateway().Masked().String()) }},
	}
	annotations := func(n *node) map[string]string {
		o, _ := r.control.Node(n.name)
		return o.Metadata.Annotations
	}
	want := map[*node]map[string]string{nodes[0]: annotations(nodes[0]), nodes[1]: annotations(nodes[1])}
	random := rand.New(rand.NewPCG(*faultSeed, 0))
	for round := range *faultRounds {
		f, victim := faults[random.IntN(len(faults))], random.IntN(len(nodes))
		t.Logf("round %d: %s, node %s", round+1, f.name, nodes[victim].name)
		f.raise(victim)
		for _, n := range nodes {
			r.eventually("annotations of "+n.name, func() error {
				if diff := cmp.Diff(want[n], annotations(n)); diff != "" {
					return fmt.Errorf("annotations (-want +have):\n%s", diff)
				}
				return nil
			})
		}
		r.connected(nodes...)
	}
}
