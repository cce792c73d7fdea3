// Package worker runs a worker node of a Kubernetes cluster for tests: containerd,
// kubelet and kube-proxy, on a host of a lab. All of them are the real programs. The
// node has its own processes, control groups, parameters and folders, such as /run,
// /etc/cni and /opt/cni/bin; node.sh makes them. All of it ends with the test.
package worker

import (
	"context"
	"embed"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/flannel/e2e/kube/component"
	"github.com/coreos/flannel/e2e/kube/controlplane"
	"github.com/coreos/flannel/pkg/netnstest"
)

// PauseImage is the name of the image of a pod's first container. One of the images
// of Start must have it.
const PauseImage = "flannel.test/pause:v1"

const socket = "/run/node/containerd.sock"

//go:embed node.sh containerd.toml kubelet.yaml kube-proxy.yaml
var files embed.FS

// Worker is a worker node. Its methods are for the test's own goroutine.
type Worker struct {
	*netnstest.Host
	t         testing.TB
	control   *controlplane.ControlPlane
	dir       string
	enclosure *netnstest.Enclosure
	running   *component.Set
}

// Start starts a node on h, which has the name of the host, with images from archives.
// It waits until the Node object exists. The control plane knows the node as one of
// its Workers.
func Start(t testing.TB, h *netnstest.Host, control *controlplane.ControlPlane, clusterCIDR string, archives ...string) *Worker {
	t.Helper()
	w := &Worker{Host: h, t: t, control: control, dir: t.TempDir()}
	w.writeFiles(clusterCIDR)
	log, err := os.Create(filepath.Join(w.dir, "containerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	w.enclosure = h.Enclose(log, "unshare", "--mount", "sh", filepath.Join(w.dir, "node.sh"), w.dir, h.Netns())
	t.Cleanup(w.logPods)
	w.running = component.NewSet(t, w.dir)
	netnstest.EventuallyWithin(t, component.StartLimit, "containerd of "+h.Name(), w.dialContainerd)
	for _, archive := range archives {
		w.Run("ctr", "--address="+socket, "--namespace=k8s.io", "images", "import", archive)
	}
	w.StartKubelet()
	netnstest.EventuallyWithin(t, component.StartLimit, "the Node of "+h.Name(), func() error {
		if _, ok := control.Node(h.Name()); !ok {
			return errors.New("there is none")
		}
		return nil
	})
	w.start("kube-proxy", "--config="+filepath.Join(w.dir, "kube-proxy.yaml"))
	return w
}

// logPods shows the ends of the logs of containers if the test has failed.
func (w *Worker) logPods() {
	if !w.t.Failed() {
		return
	}
	logs, err := filepath.Glob(w.Path("/var/log/pods/*/*/*.log"))
	if err != nil {
		w.t.Error(err)
	}
	for _, name := range logs {
		pod, _ := filepath.Rel(w.Path("/var/log/pods"), name)
		w.t.Logf("the end of the log of %s on %s:\n%s", pod, w.Name(), component.End(name))
	}
}

// writeFiles writes the configurations.
func (w *Worker) writeFiles(clusterCIDR string) {
	w.t.Helper()
	all, err := files.ReadDir(".")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range all {
		text, err := files.ReadFile(f.Name())
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.HasPrefix(f.Name(), "kube-proxy") {
			text = []byte(os.Expand(string(text), func(key string) string {
				return map[string]string{"NODE": w.Name(), "CLUSTER_CIDR": clusterCIDR, "DIR": w.dir}[key]
			}))
		}
		w.write(f.Name(), string(text))
	}
	w.write("kubelet.conf", w.control.Kubeconfig(controlplane.KubeletToken(w.Name())))
	w.write("kube-proxy.conf", w.control.Kubeconfig(controlplane.ProxyToken))
}

func (w *Worker) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *Worker) dialContainerd() error {
	select {
	case <-w.enclosure.Ended():
		text, err := os.ReadFile(filepath.Join(w.dir, "containerd.log"))
		w.t.Fatalf("containerd of %s has ended: %v\n%s", w.Name(), err, text)
	default:
	}
	path, err := w.enclosure.Path(socket)
	if err != nil {
		return err
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		err = c.Close()
	}
	return err
}

// StartKubelet starts the kubelet, which registers the Node if there is none.
func (w *Worker) StartKubelet() {
	w.t.Helper()
	w.start("kubelet", "--config="+filepath.Join(w.dir, "kubelet.yaml"), "--kubeconfig="+filepath.Join(w.dir, "kubelet.conf"),
		"--hostname-override="+w.Name(), "--node-ip="+w.Addr().Addr().String()+","+w.IPv6Addr().Addr().String())
}

// Kill ends kubelet or kube-proxy as a power cut does.
func (w *Worker) Kill(name string) {
	w.t.Helper()
	w.running.Kill(name)
}

func (w *Worker) start(name string, args ...string) {
	w.t.Helper()
	cmd, err := w.enclosure.Command(context.WithoutCancel(w.t.Context()), w.control.Program(name), args...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.running.Start(name, cmd)
}

// Run runs a command on the node, and returns what it prints.
func (w *Worker) Run(name string, args ...string) string {
	w.t.Helper()
	cmd, err := w.enclosure.Command(w.t.Context(), name, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %q on %s: %v\n%s", name, args, w.Name(), err, out)
	}
	return string(out)
}

// Path returns the path by which this process reaches a file of the node.
func (w *Worker) Path(name string) string {
	w.t.Helper()
	path, err := w.enclosure.Path(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

// Read reads a file of the node.
func (w *Worker) Read(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(w.Path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// Pid returns the id of a container's first process, on the node.
func (w *Worker) Pid(container string) string {
	w.t.Helper()
	return w.Read("/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + container + "/init.pid")
}

// Network returns the path by which this process reaches the network namespace of a
// container.
func (w *Worker) Network(container string) string {
	w.t.Helper()
	return w.Path("/proc/" + w.Pid(container) + "/ns/net")
}
