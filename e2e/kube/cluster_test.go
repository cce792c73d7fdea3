package kube

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/e2e/kube/controlplane"
	"github.com/coreos/flannel/e2e/kube/worker"
)

// podCIDRs are the ranges of a cluster with real nodes. The first is that of the
// manifest.
const podCIDRs = "10.244.0.0/16,fd00:244::/48"

const (
	namespace = "kube-flannel"
	// conflist is where the daemon publishes the CNI configuration.
	conflist = "/etc/cni/net.d/10-flannel.conflist"
)

// cluster is a cluster with real nodes, on which flannel is a DaemonSet.
type cluster struct {
	*rig
	images  imageSet
	workers []*worker.Worker
}

// newCluster starts a cluster in which no podCIDRs are assigned yet.
func newCluster(t *testing.T, nodes ...string) *cluster {
	t.Helper()
	c := &cluster{rig: newRig(t, controlplane.Options{Workers: nodes})}
	var err error
	if c.images, err = nodeImages(); err != nil {
		t.Fatal(err)
	}
	for _, name := range nodes {
		c.workers = append(c.workers, worker.Start(t, c.lab.DualHost(name), c.control, podCIDRs, c.images.archives...))
	}
	return c
}

// ready reports whether the Node is ready: the engine has a CNI configuration.
func (c *cluster) ready(w *worker.Worker) bool {
	c.t.Helper()
	o, _ := c.control.Node(w.Name())
	return slices.ContainsFunc(o.Status.Conditions, func(condition controlplane.Condition) bool {
		return condition.Type == "Ready" && condition.Status == "True"
	})
}

// readyz returns the answer of the daemon's probe.
func (c *cluster) readyz(w *worker.Worker) (int, string) {
	return get(c.t, w.HTTP(), "http://"+w.Addr().Addr().String()+":8081/readyz")
}

// pod returns the pod with a label on a node, once it is ready, and is another one
// than old.
func (c *cluster) pod(ns, label string, w *worker.Worker, old controlplane.Pod) (pod controlplane.Pod) {
	c.t.Helper()
	c.eventually("the pod "+label+" on "+w.Name(), func() error {
		pods, err := c.control.Pods(ns, label)
		if err != nil {
			return err
		}
		for _, pod = range pods {
			if s := pod.Status.ContainerStatuses; pod.Spec.NodeName == w.Name() && pod.Metadata.Name != old.Metadata.Name && len(s) == 1 && s[0].Ready {
				return nil
			}
		}
		return fmt.Errorf("the pods are %+v", pods)
	})
	return pod
}

// echo returns the echo server on a node.
func (c *cluster) echo(w *worker.Worker, old controlplane.Pod) controlplane.Pod {
	c.t.Helper()
	return c.pod("default", "app=echo", w, old)
}

// daemon returns the pod of flannel on a node.
func (c *cluster) daemon(w *worker.Worker, old controlplane.Pod) controlplane.Pod {
	c.t.Helper()
	return c.pod(namespace, "app=flannel", w, old)
}

// container returns the id of a pod's container.
func container(p controlplane.Pod) string {
	return path.Base(p.Status.ContainerStatuses[0].ContainerID)
}

// enter returns the command that enters a pod's network namespace.
func enter(w *worker.Worker, p controlplane.Pod) []string {
	return []string{"nsenter", "--net=" + w.Network(container(p))}
}

// addresses are those of a pod, first that of IPv4.
func addresses(p controlplane.Pod) (all []netip.Addr) {
	for _, a := range p.Status.PodIPs {
		all = append(all, a.IP)
	}
	return all
}

// connect checks that the echo servers of all nodes reach each other by each address,
// and the Service in each family that they have.
func (c *cluster) connect(echo map[*worker.Worker]controlplane.Pod, families int) {
	c.t.Helper()
	service := strings.Fields(c.control.Kubectl("get", "service", "echo", "--output=jsonpath={.spec.clusterIPs[0]} {.spec.clusterIPs[1]}"))
	for a, from := range echo {
		if have := addresses(from); len(have) != families {
			c.t.Fatalf("the pod on %s has addresses %v", a.Name(), have)
		}
		for b, to := range echo {
			if a == b {
				continue
			}
			for _, addr := range addresses(to) {
				c.eventually(fmt.Sprintf("ping from %s to %s, %v", a.Name(), b.Name(), addr), func() error { return ping(c.t, a.Host, addr, enter(a, from)...) })
				c.talk(from, addr.String())
			}
		}
		for _, addr := range service[:families] {
			c.talk(from, addr)
		}
	}
}

// talk waits until a pod reaches an echo server by TCP.
func (c *cluster) talk(from controlplane.Pod, to string) {
	c.t.Helper()
	addr := netip.AddrPortFrom(netip.MustParseAddr(to), 5000).String()
	c.eventually("TCP from "+from.Spec.NodeName+" to "+addr, func() error {
		_, err := c.control.TryKubectl("exec", from.Metadata.Name, "--", "/guest", "tcp", addr, "100000")
		return err
	})
}
