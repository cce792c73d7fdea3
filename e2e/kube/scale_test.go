package kube

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/e2e/kube/controlplane"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/kube"
)

var (
	manyNodes  = flag.Int("nodes", 300, "TestManyNodes, TestManyStarts: how many")
	manyStarts = flag.Int("starts", 20, "TestManyStarts: how many hosts start at once")
)

// maxResident bounds the memory of a daemon in a cluster of 5,000 Nodes.
const maxResident = 60 << 20

// A daemon in a large cluster has a route for each Node, and little memory.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	n := r.node("n1")
	n.program = shipped
	n.configure(`{"Network":"10.0.0.0/8","Backend":{"Type":"host-gw"}}`)
	r.control.AddNode("n1", "10.255.1.0/24")
	r.addPeers(n.Addr().Addr(), *manyNodes)
	began := time.Now()
	d := n.launch("--probe-interval=0").ready()
	ready := time.Since(began)
	r.eventually("all routes", func() error {
		if have := strings.Count(n.run("ip", "route"), "via"); have < *manyNodes {
			return fmt.Errorf("%d of %d", have, *manyNodes)
		}
		return nil
	})
	total, own := memoryOf(t, d.Cmd.Process.Pid)
	t.Logf("%d nodes: ready after %v, %d MB resident, %d MB of them not of the program's file", *manyNodes, ready.Round(time.Millisecond), total>>20, own>>20)
	if total > maxResident {
		t.Errorf("%d MB resident", total>>20)
	}
}

// Many hosts start at once, each with a connection, a lease and a list of all Nodes. They
// are the store and the manager of the daemon, all in this process.
func TestManyStarts(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	observer := r.lab.Host("observer")
	r.addPeers(observer.Addr().Addr(), *manyNodes)
	dir := t.TempDir()
	config, kubeconfig := filepath.Join(dir, "net-conf.json"), filepath.Join(dir, "kubeconfig")
	for name, text := range map[string]string{config: `{"Network":"10.0.0.0/8","Backend":{"Type":"host-gw"}}`, kubeconfig: r.control.Kubeconfig(controlplane.FlannelToken)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, err := kube.ParseAnnotations(kube.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	for i := range *manyStarts {
		r.control.AddNode(hostName(i), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 255, byte(i), 0}), 24).String())
	}
	used, began := r.control.CPUTime(), time.Now()
	var hosts errgroup.Group
	for i := range *manyStarts {
		k := kube.New(kube.Config{Kubeconfig: kubeconfig, NetConfig: config, Annotations: names, Self: kube.Self{Node: hostName(i)}, Dial: observer.Dial})
		t.Cleanup(func() { k.Close() })
		hosts.Go(func() error { return startHost(t, k, i) })
	}
	if err := hosts.Wait(); err != nil {
		t.Fatal(err)
	}
	took, used := time.Since(began), r.control.CPUTime()-used
	t.Logf("%d starts among %d nodes: all ready after %v; %v of the API server's CPU time each",
		*manyStarts, *manyNodes, took.Round(10*time.Millisecond), (used / time.Duration(*manyStarts)).Round(time.Millisecond))
}

// startHost gets a lease and the first full set of peers, as a daemon does before it is
// ready.
func startHost(t *testing.T, k *kube.Store, number int) error {
	text, err := k.Config(t.Context())
	if err != nil {
		return err
	}
	c, err := subnet.ParseConfig(text)
	if err != nil {
		return err
	}
	m := subnet.NewManager(k, k.Holder(c), c, subnet.Timing{})
	a := subnet.Attrs{PublicIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(number)}), BackendType: "host-gw"}
	l, err := m.Acquire(t.Context(), a, subnet.Hints{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	peers := 0
	err = m.Watch(ctx, l, func(events []subnet.Event) {
		if peers += len(events); peers >= *manyNodes {
			cancel()
		}
	})
	if err == nil && t.Context().Err() != nil {
		err = t.Context().Err()
	}
	return err
}

func hostName(i int) string { return fmt.Sprintf("host-%d", i) }

// addPeers creates Nodes of other hosts. Each has the size of a real one: images, labels,
// conditions. Their addresses are some of link's.
func (r *rig) addPeers(link netip.Addr, count int) {
	r.t.Helper()
	for i := range count {
		gateway := link
		for range 1 + i%100 {
			gateway = gateway.Next()
		}
		r.control.Create("/api/v1/nodes", map[string]any{
			"metadata": map[string]any{"name": fmt.Sprintf("peer-%d", i), "annotations": map[string]any{
				prefix + "kube-subnet-manager": "true", prefix + "backend-type": "host-gw", prefix + "backend-data": "null", prefix + "public-ip": gateway.String()}},
			"spec":   map[string]any{"podCIDR": podCIDR(i), "podCIDRs": []string{podCIDR(i)}},
			"status": map[string]any{"images": images()},
		})
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

// memoryOf returns the memory of a process that is in RAM, and the part that is not of
// files (VmRSS and RssAnon of proc(5)).
func memoryOf(t *testing.T, pid int) (total, anonymous uint64) {
	t.Helper()
	p, err := procfs.NewProc(pid)
	if err != nil {
		t.Fatal(err)
	}
	status, err := p.NewStatus()
	if err != nil {
		t.Fatal(err)
	}
	if status.VmRSS == 0 || status.RssAnon == 0 {
		t.Fatalf("process %d has no memory: %+v", pid, status)
	}
	return status.VmRSS, status.RssAnon
}
