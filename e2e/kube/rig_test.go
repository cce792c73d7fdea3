package kube

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/flannel/e2e/kube/controlplane"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/subnetfile"
)

// patience bounds every wait for a condition. It is long, because a machine may be
// slow.
const patience = 90 * time.Second

// programs returns the folder of the programs that tests build.
var programs = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "flannel-kube-") })

// build builds a program with CGO_ENABLED set to cgo, and returns its path.
func build(name, module, cgo string, flags ...string) (string, error) {
	dir, err := programs()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	args := append([]string{"build", "-buildvcs=false", "-o", path}, flags...)
	cmd := exec.CommandContext(context.Background(), "go", append(args, module)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// flannel is the program under test. shipped is the same without the race detector, which
// takes ten times the memory. Each is built once.
var (
	flannel = sync.OnceValues(func() (string, error) {
		if raceEnabled {
			return build("flannel", module, "1", "-race")
		}
		return shipped()
	})
	shipped = sync.OnceValues(func() (string, error) {
		return build("flannel-linux-"+runtime.GOARCH, module, "0", "-trimpath", "-ldflags=-s -w")
	})
)

// module is the path of the program's package.
const module = "github.com/coreos/flannel"

// TestMain removes the programs.
func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// rig is a cluster whose hosts are network namespaces.
type rig struct {
	t       *testing.T
	lab     *netnstest.Lab
	api     *netnstest.Host // of the control plane
	control *controlplane.ControlPlane
	assigns bool // the controller manager runs
}

// newRig makes a cluster without nodes.
func newRig(t *testing.T, o controlplane.Options) *rig {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	api := lab.Host("api")
	return &rig{t: t, lab: lab, api: api, control: controlplane.Start(t, api, o), assigns: o.ClusterCIDR != ""}
}

// node is a host of the cluster, with the folders of its daemon.
type node struct {
	*netnstest.Host
	rig       *rig
	name      string
	dir       string
	program   func() (path string, err error)
	container *netnstest.Host
}

// node makes a host. It has neither a Node object nor a daemon yet.
func (r *rig) node(name string) *node {
	r.t.Helper()
	return r.nodeOn(r.lab.Host(name))
}

// nodeOn makes a host of a namespace.
func (r *rig) nodeOn(h *netnstest.Host) *node {
	r.t.Helper()
	n := &node{Host: h, rig: r, name: h.Name(), dir: r.t.TempDir(), program: flannel}
	n.configure(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	n.write("kubeconfig", r.control.Kubeconfig(controlplane.FlannelToken))
	return n
}

func (n *node) configure(text string) { n.write("net-conf.json", text) }

func (n *node) write(name, text string) {
	n.rig.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
		n.rig.t.Fatal(err)
	}
}

// daemon is one run of the program.
type daemon struct {
	*netnstest.Process
	node *node
}

// launch starts the daemon as the container of a DaemonSet has it.
func (n *node) launch(args ...string) *daemon {
	n.rig.t.Helper()
	name, err := n.program()
	if err != nil {
		n.rig.t.Fatal(err)
	}
	all := append([]string{"--ip-masq", "--kube-subnet-mgr", "--healthz-port=8081", "--kubeconfig-file=" + filepath.Join(n.dir, "kubeconfig"),
		"--net-config-path=" + filepath.Join(n.dir, "net-conf.json"), "--subnet-file=" + n.envFile(),
		"--state-dir=" + filepath.Join(n.dir, "state")}, args...)
	cmd := n.Command(context.Background(), name, all...)
	var log bytes.Buffer // to be read after the end
	d := &daemon{node: n}
	cmd.Env = append(os.Environ(), "NODE_NAME="+n.name, "FLANNELD_IFACE=")
	cmd.Stderr = &log
	if d.Process, err = cmd.Launch(); err != nil {
		n.rig.t.Fatal(err)
	}
	n.rig.t.Cleanup(func() {
		d.kill()
		text := log.String()
		if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
			n.rig.t.Errorf("node %s: the daemon crashed", n.name)
		}
		if n.rig.t.Failed() {
			n.rig.t.Logf("log of flannel on %s:\n%s", n.name, text)
		}
	})
	return d
}

func (n *node) envFile() string { return filepath.Join(n.dir, "run", "subnet.env") }

// kill ends the daemon as the kernel does when it is out of memory.
func (d *daemon) kill() {
	if err := d.Kill(); err != nil {
		d.node.rig.t.Error(err)
	}
	<-d.Ended()
}

// ready waits until the probe of the pod succeeds.
func (d *daemon) ready() *daemon {
	d.node.rig.t.Helper()
	d.node.rig.eventually("readyz of "+d.node.name, func() error {
		code, text := d.node.get("http://127.0.0.1:8081/readyz")
		if code != http.StatusOK {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	})
	return d
}

// waits waits until the probe of the pod has a reason with text.
func (d *daemon) waits(text string) {
	d.node.rig.t.Helper()
	d.node.rig.eventually("reason of "+d.node.name, func() error {
		if code, answer := d.node.get("http://127.0.0.1:8081/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(answer, text) {
			return fmt.Errorf("%d %s, want %q", code, answer, text)
		}
		return nil
	})
	if code, _ := d.node.get("http://127.0.0.1:8081/healthz"); code != http.StatusOK {
		d.node.rig.t.Errorf("healthz of %s is %d while it waits", d.node.name, code)
	}
}

// get sends a request on the host.
func (n *node) get(url string) (int, string) {
	n.rig.t.Helper()
	return get(n.rig.t, n.HTTP(), url)
}

// get sends a request, and returns the status code and the answer. Without an answer,
// the code is 0 and the text is the error.
func get(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// env reads subnet.env.
func (n *node) env() map[string]string {
	n.rig.t.Helper()
	values, err := subnetfile.Variables(n.envFile())
	if err != nil {
		n.rig.t.Fatal(err)
	}
	return values
}

// gateway is FLANNEL_SUBNET.
func (n *node) gateway() netip.Prefix {
	n.rig.t.Helper()
	p, err := netip.ParsePrefix(n.env()["FLANNEL_SUBNET"])
	if err != nil {
		n.rig.t.Fatal(err)
	}
	return p
}

// addPod makes a bridge and one container behind it, as a CNI plugin does.
func (n *node) addPod() {
	n.rig.t.Helper()
	mtu, err := strconv.Atoi(n.env()["FLANNEL_MTU"])
	if err != nil {
		n.rig.t.Fatal(err)
	}
	gateway := n.gateway()
	n.Bridge("cni0", gateway, mtu)
	n.container = n.Container(n.name+"-pod", "cni0", netip.PrefixFrom(n.podAddr(), gateway.Bits()), gateway.Addr(), mtu)
}

func (n *node) podAddr() netip.Addr { return n.gateway().Addr().Next() }

// join makes hosts with daemons, Nodes and pods that reach each other. The controller
// manager assigns the podCIDRs if it runs.
func (r *rig) join(names ...string) (nodes []*node, daemons []*daemon) {
	r.t.Helper()
	for _, name := range names {
		n := r.node(name)
		var podCIDRs []string
		if !r.assigns {
			podCIDRs = []string{fmt.Sprintf("10.5.%d.0/24", len(nodes)+1)}
		}
		r.control.AddNode(name, podCIDRs...)
		nodes, daemons = append(nodes, n), append(daemons, n.launch())
	}
	for i, n := range nodes {
		daemons[i].ready()
		n.addPod()
	}
	r.connected(nodes...)
	return nodes, daemons
}

// connected waits until the pods of all nodes reach each other.
func (r *rig) connected(nodes ...*node) {
	r.t.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				r.eventually("ping from "+a.name+" to "+b.name, func() error { return r.ping(a.container, b.podAddr()) })
			}
		}
	}
}

func (r *rig) ping(from *netnstest.Host, to netip.Addr) error { return ping(r.t, from, to) }

// ping sends one packet from the network namespace of h. The command may enter another
// one before it: nsenter and its arguments.
func ping(t *testing.T, h *netnstest.Host, to netip.Addr, enter ...string) error {
	command := append(enter, "ping", "-n", "-c", "1", "-W", "1", to.String())
	out, err := h.Command(t.Context(), command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// run runs a command on the host.
func (n *node) run(name string, args ...string) string {
	n.rig.t.Helper()
	out, err := n.Command(n.rig.t.Context(), name, args...).CombinedOutput()
	if err != nil {
		n.rig.t.Fatalf("%s %q on %s: %v\n%s", name, args, n.name, err, out)
	}
	return string(out)
}

// eventually waits until ok returns nil.
func (r *rig) eventually(what string, ok func() error) {
	r.t.Helper()
	netnstest.EventuallyWithin(r.t, patience, what, ok)
}

// flow is a stream of pings.
type flow struct {
	t   *testing.T
	cmd *netnstest.Cmd
	out bytes.Buffer // to be read after the end
}

// startFlow sends 50 packets a second from one pod to another.
func (r *rig) startFlow(from, to *node) *flow {
	r.t.Helper()
	return newFlow(r.t, from.container, to.podAddr())
}

// newFlow sends 50 packets a second, as ping sends one.
func newFlow(t *testing.T, h *netnstest.Host, to netip.Addr, enter ...string) *flow {
	t.Helper()
	command := append(enter, "ping", "-n", "-i", "0.02", "-W", "5", to.String())
	f := &flow{t: t, cmd: h.Command(t.Context(), command[0], command[1:]...)}
	f.cmd.Stdout, f.cmd.Stderr = &f.out, &f.out
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return f
}

var pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// lost ends the flow and returns how many packets were not answered, and how many
// were sent. One may be under way at the end.
func (f *flow) lost() (lost, sent int) {
	f.t.Helper()
	if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
		f.t.Fatal(err)
	}
	_ = f.cmd.Wait() // exit code 1 is that of loss
	found := pingSummary.FindStringSubmatch(f.out.String())
	if found == nil {
		f.t.Fatalf("ping printed %q", f.out.String())
	}
	sent, _ = strconv.Atoi(found[1])
	received, _ := strconv.Atoi(found[2])
	return max(0, sent-received-1), sent
}

func prefixOf(s string) netip.Prefix { return netip.MustParsePrefix(s) }
