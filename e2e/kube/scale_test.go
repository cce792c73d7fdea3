package kube

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/e2e/kube/controlplane"
)

var manyNodes = flag.Int("nodes", 300, "TestManyNodes: how many")

// maxResident bounds the memory of a daemon in a cluster of 5,000 Nodes.
const maxResident = 60 << 20

// A daemon in a large cluster has a route for each Node, and little memory. Each
// Node has the size of a real one: images, labels, conditions.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	n := r.node("n1")
	n.configure(`{"Network":"10.0.0.0/8","Backend":{"Type":"host-gw"}}`)
	r.control.AddNode("n1", "10.255.1.0/24")
	for i := range *manyNodes {
		gateway := n.Addr().Addr() // any address of the link will do
		for range 1 + i%100 {
			gateway = gateway.Next()
		}
		o := map[string]any{
			"metadata": map[string]any{"name": fmt.Sprintf("peer-%d", i), "annotations": map[string]any{
				prefix + "kube-subnet-manager": "true", prefix + "backend-type": "host-gw", prefix + "backend-data": "null", prefix + "public-ip": gateway.String()}},
			"spec":   map[string]any{"podCIDR": podCIDR(i), "podCIDRs": []string{podCIDR(i)}},
			"status": map[string]any{"images": images()},
		}
		r.control.Create("/api/v1/nodes", o)
	}
	began := time.Now()
	d := n.launch("--probe-interval=0").ready()
	ready := time.Since(began)
	r.eventually("all routes", func() error {
		if have := strings.Count(n.run("ip", "route"), "via"); have < *manyNodes {
			return fmt.Errorf("%d of %d", have, *manyNodes)
		}
		return nil
	})
	resident := residentOf(t, d.Cmd.Process.Pid)
	t.Logf("%d nodes: ready after %v, %d MB resident", *manyNodes, ready.Round(time.Millisecond), resident>>20)
	if resident > maxResident {
		t.Errorf("%d MB resident", resident>>20)
	}
}

func podCIDR(i int) string {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24).String()
}

// images are what a kubelet reports of the images on its node.
func images() (all []map[string]any) {
	for i := range 50 {
		name := fmt.Sprintf("registry.example.com/team-%d/application-%d", i%7, i)
		all = append(all, map[string]any{"names": []string{name + "@sha256:" + strings.Repeat("0123456789abcdef", 4), name + ":v1"}, "sizeBytes": 10_000_000 + i})
	}
	return all
}

// residentOf returns the memory of a process that is in RAM (VmRSS of proc(5)).
func residentOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kb, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
