package kube

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/contrib/kubernetes/render"
	"github.com/coreos/flannel/e2e/kube/controlplane"
	"github.com/coreos/flannel/e2e/kube/worker"
)

// On real nodes, the manifest as it is makes a network, which survives what happens to
// nodes, pods and daemons.
func TestNodes(t *testing.T) {
	t.Parallel()
	checkMachine(t)
	c := newCluster(t, "n1", "n2")
	c.waitForPodCIDR()
	c.join()
	echo := c.startEcho()
	c.connect(echo, 1)
	c.checkHostPort()
	c.replaceDaemons(echo)
	echo = c.replacePods(echo)
	c.connect(echo, 2)
	c.freeLeaked(echo[c.workers[0]])
	c.replaceNode(echo)
}

// checkMachine checks at the end of the test that the machine's parameters are those
// of before. kubelet and kube-proxy set many. The parameters of a module that is not
// loaded yet have no value before.
func checkMachine(t *testing.T) {
	t.Helper()
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
		"kernel/keys/root_maxbytes", "net/netfilter/nf_conntrack_max", "net/ipv4/ip_forward"} {
		before, err := os.ReadFile("/proc/sys/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		t.Cleanup(func() {
			if after, afterErr := os.ReadFile("/proc/sys/" + name); err != nil || afterErr != nil || !bytes.Equal(before, after) {
				t.Errorf("the machine's %s was %q and is %q: %v, %v", name, before, after, err, afterErr)
			}
		})
	}
}

// waitForPodCIDR starts flannel before the nodes have podCIDRs. Its pods wait. A
// configuration of CNI from before a reboot, with which a node is ready, goes away.
func (c *cluster) waitForPodCIDR() {
	c.t.Helper()
	rebooted := c.workers[0]
	rebooted.Run("sh", "-euc", `echo '{"cniVersion":"0.3.1","name":"cbr0","plugins":[{"type":"flannel"}]}' >`+conflist)
	c.shows(rebooted, true, "a stale configuration")
	for _, name := range []string{manifest, filepath.Join(filepath.Dir(manifest), "own-node-only.yml")} {
		c.control.Kubectl("apply", "--validate=strict", "--filename="+name)
	}
	for _, w := range c.workers {
		c.eventually("reason of "+w.Name(), func() error {
			if code, text := c.readyz(w); code != 503 || !strings.Contains(text, "has no podCIDR") {
				return fmt.Errorf("%d %s", code, text)
			}
			return nil
		})
		c.shows(w, false, "no subnet")
	}
}

// shows waits until the node has a CNI configuration and is ready, or neither.
func (c *cluster) shows(w *worker.Worker, ready bool, when string) {
	c.t.Helper()
	c.eventually("the state of "+w.Name()+" with "+when, func() error {
		_, err := os.Stat(w.Path(conflist))
		if isReady := c.ready(w); isReady != ready || (err == nil) != ready {
			return fmt.Errorf("ready: %v; CNI configuration: %v", isReady, err)
		}
		return nil
	})
}

// join assigns podCIDRs: each node becomes ready, and its pod of flannel has not
// been restarted.
func (c *cluster) join() {
	c.t.Helper()
	c.control.AssignPodCIDRs(podCIDRs)
	c.rollout("ds/kube-flannel-ds", "--namespace="+namespace)
	for _, w := range c.workers {
		c.joined(w)
		if pod := c.daemon(w, controlplane.Pod{}); pod.Status.ContainerStatuses[0].RestartCount != 0 {
			c.t.Errorf("the daemon on %s has been restarted", w.Name())
		}
	}
}

// joined waits until pods can start on a node.
func (c *cluster) joined(w *worker.Worker) {
	c.t.Helper()
	c.shows(w, true, "a subnet")
	c.eventually("condition of "+w.Name(), func() error {
		o, _ := c.control.Node(w.Name())
		for _, condition := range o.Status.Conditions {
			if condition.Type == "NetworkUnavailable" && condition.Status == "False" && condition.Reason == "FlannelIsUp" {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", o.Status.Conditions)
	})
}

func (c *cluster) rollout(args ...string) {
	c.t.Helper()
	c.control.Kubectl(append([]string{"rollout", "status", "--timeout=" + patience.String()}, args...)...)
}

func (c *cluster) startEcho() map[*worker.Worker]controlplane.Pod {
	c.t.Helper()
	c.control.Kubectl("apply", "--validate=strict", "--filename=testdata/echo.yaml")
	echo := make(map[*worker.Worker]controlplane.Pod)
	for _, w := range c.workers {
		echo[w] = c.echo(w, controlplane.Pod{})
	}
	return echo
}

// checkHostPort connects from outside of the network to the port of a pod at its
// node, which the plugin portmap opens.
func (c *cluster) checkHostPort() {
	c.t.Helper()
	for _, w := range c.workers {
		c.eventually("port of the pod at "+w.Name(), func() error {
			conn, err := c.lab.Router().Dial(c.t.Context(), "tcp", netip.AddrPortFrom(w.Addr().Addr(), 8080).String())
			if err == nil {
				err = conn.Close()
			}
			return err
		})
	}
}

// replaceDaemons replaces the daemons in four ways: the kernel kills the process, the pod
// is deleted, flannel-io's DaemonSet takes the place of ours, and the chart brings ours
// back with another image and with IPv6. No packet is lost.
func (c *cluster) replaceDaemons(echo map[*worker.Worker]controlplane.Pod) {
	c.t.Helper()
	first, second := c.workers[0], c.workers[1]
	f := newFlow(c.t, second.Host, addresses(echo[first])[0], enter(second, echo[second])...)

	pod := c.daemon(first, controlplane.Pod{})
	first.Run("kill", "-KILL", first.Pid(container(pod)))
	c.eventually("another process", func() error {
		pod = c.daemon(first, controlplane.Pod{})
		if s := pod.Status.ContainerStatuses[0]; s.RestartCount != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	c.control.Kubectl("delete", "pod", pod.Metadata.Name, "--namespace="+namespace)
	c.daemon(first, pod)

	text, err := os.ReadFile("testdata/kube-flannel-ds.yaml")
	if err != nil {
		c.t.Fatal(err)
	}
	c.update(os.Expand(string(text), func(string) string { return c.images.name }), c.images.name)

	tag := c.images.newer[strings.LastIndex(c.images.newer, ":")+1:]
	chart, err := render.Chart(filepath.Join(filepath.Dir(manifest), "chart"), render.APIVersions{"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"},
		render.Values{"podCidrv6": "fd00:244::/48", "flannel": render.Values{"image": render.Values{"tag": tag}}}, render.Order...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.update(chart, c.images.newer)
	if lost, sent := f.lost(); lost > 0 {
		c.t.Errorf("%d of %d packets are lost while daemons are replaced", lost, sent)
	}
	leases := c.control.Kubectl("exec", "--namespace="+namespace, "ds/kube-flannel-ds", "--", "/opt/bin/flanneld", "leases")
	for _, w := range c.workers {
		if !strings.Contains(leases, w.Name()) {
			c.t.Errorf("flannel leases lacks %s:\n%s", w.Name(), leases)
		}
	}
}

// update applies objects, and waits until the daemons are of their image.
func (c *cluster) update(objects, image string) {
	c.t.Helper()
	name := filepath.Join(c.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(name, []byte(objects), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.control.Kubectl("apply", "--validate=strict", "--filename="+name)
	c.rollout("ds/kube-flannel-ds", "--namespace="+namespace)
	for _, w := range c.workers {
		if pod := c.daemon(w, controlplane.Pod{}); pod.Status.ContainerStatuses[0].Image != image {
			c.t.Errorf("the daemon on %s is %+v, want %s", w.Name(), pod.Status.ContainerStatuses[0], image)
		}
	}
}

// replacePods replaces each echo server by a new one, which has addresses of both
// families. Those of before are free.
func (c *cluster) replacePods(old map[*worker.Worker]controlplane.Pod) map[*worker.Worker]controlplane.Pod {
	c.t.Helper()
	c.control.Kubectl("rollout", "restart", "ds/echo")
	echo := make(map[*worker.Worker]controlplane.Pod)
	for _, w := range c.workers {
		echo[w] = c.echo(w, old[w])
		c.eventually("reservations of "+w.Name(), func() error { return reserved(w, addresses(echo[w])...) })
	}
	return echo
}

// reservations is the folder of host-local.
const reservations = "/var/lib/cni/networks/cbr0"

// reserved checks that the node keeps these addresses for pods, and no others.
func reserved(w *worker.Worker, want ...netip.Addr) error {
	files, err := os.ReadDir(w.Path(reservations))
	if err != nil {
		return err
	}
	var have []netip.Addr
	for _, f := range files {
		if a, err := netip.ParseAddr(f.Name()); err == nil { // other files are host-local's own
			have = append(have, a)
		}
	}
	slices.SortFunc(have, netip.Addr.Compare)
	slices.SortFunc(want, netip.Addr.Compare)
	if !slices.Equal(have, want) {
		return fmt.Errorf("the reservations are %v, want %v", have, want)
	}
	return nil
}

// freeLeaked makes a pod's network that the engine forgets, as in a crash. The engine of
// CNI 1.1 names the pods that it knows (GC), and the addresses of others are free.
func (c *cluster) freeLeaked(echo controlplane.Pod) {
	c.t.Helper()
	w := c.workers[0]
	const (
		plugin = `export CNI_PATH=/opt/cni/bin; echo "$1" | /opt/cni/bin/flannel`
		add    = `ip netns add lost; export CNI_COMMAND=ADD CNI_CONTAINERID=lost CNI_NETNS=/run/netns/lost CNI_IFNAME=eth0; ` + plugin + `; ip netns del lost`
		gc     = `export CNI_COMMAND=GC; ` + plugin
	)
	w.Run("sh", "-euc", add, "sh", `{"cniVersion":"1.0.0","name":"cbr0","type":"flannel"}`)
	if err := reserved(w, addresses(echo)...); err == nil {
		c.t.Error("the pod that is lost has no addresses")
	}
	sandbox, _, _ := strings.Cut(w.Read(path.Join(reservations, addresses(echo)[0].String())), "\n")
	w.Run("sh", "-euc", gc, "sh", fmt.Sprintf(`{"cniVersion":"1.1.0","name":"cbr0","type":"flannel","cni.dev/valid-attachments":[{"containerID":%q,"ifname":"eth0"}]}`,
		strings.TrimSpace(sandbox)))
	if err := reserved(w, addresses(echo)...); err != nil {
		c.t.Error(err)
	}
}

// replaceNode deletes a Node, whose kubelet registers it again. It has other podCIDRs
// then. Its daemon takes those, and new pods have addresses of them.
func (c *cluster) replaceNode(echo map[*worker.Worker]controlplane.Pod) {
	c.t.Helper()
	other, w := c.workers[0], c.workers[1]
	before, _ := c.control.Node(w.Name())
	w.Kill("kubelet")
	c.control.Kubectl("delete", "node", w.Name())
	c.eventually("no route to "+w.Name(), func() error {
		routes := other.Run("ip", "route") + other.Run("ip", "-6", "route")
		for _, subnet := range before.Spec.PodCIDRs {
			if strings.Contains(routes, subnet) {
				return errors.New(routes)
			}
		}
		return nil
	})
	w.StartKubelet()
	var after []netip.Prefix
	c.eventually("the subnet of the new Node", func() error {
		o, _ := c.control.Node(w.Name())
		env := w.Read("/run/flannel/subnet.env")
		after = nil
		for _, text := range o.Spec.PodCIDRs {
			p := netip.MustParsePrefix(text)
			after = append(after, p)
			if gateway := netip.PrefixFrom(p.Addr().Next(), p.Bits()).String(); slices.Contains(before.Spec.PodCIDRs, text) || !strings.Contains(env, gateway) {
				return fmt.Errorf("the Node has %v and had %v, subnet.env is\n%s", o.Spec.PodCIDRs, before.Spec.PodCIDRs, env)
			}
		}
		if len(after) != 2 {
			return fmt.Errorf("the Node has %v", o.Spec.PodCIDRs)
		}
		return nil
	})
	c.daemon(w, controlplane.Pod{})
	c.joined(w)

	old := c.echo(w, controlplane.Pod{})
	c.control.Kubectl("delete", "pod", old.Metadata.Name, "--ignore-not-found")
	echo[w] = c.echo(w, old)
	for i, a := range addresses(echo[w]) {
		if !after[i].Contains(a) {
			c.t.Errorf("the pod on the new Node has %v, the Node %v", a, after)
		}
	}
	c.connect(echo, 2)
}
