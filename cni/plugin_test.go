package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/cni/bundled"
	"github.com/coreos/flannel/cni/bundled/link"
	"github.com/coreos/flannel/pkg/netnstest"
)

// program is the program of the plugins. It is built without the race detector,
// which makes the start of a program slow: a pod's life is ten starts.
var program string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cni")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, Name)
	build := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", program, "./flannel")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// engine is a container engine on a host: libcni, and the folders of the host.
type engine struct {
	*testing.T
	lab    *netnstest.Lab
	host   *netnstest.Host
	cni    *libcni.CNIConfig
	bin    string         // CNI's plugins
	dir    string         // of all files
	envTo  string         // subnet.env
	name   string         // of the network
	forces map[string]any // keys of the delegate
	ports  map[string]any // keys of portmap
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	netnstest.Require(t)
	e := &engine{T: t, lab: netnstest.New(t), dir: t.TempDir(), name: "cbr0"}
	e.host = e.lab.Host("host")
	e.bin, e.envTo = filepath.Join(e.dir, "bin"), filepath.Join(e.dir, "subnet.env")
	if err := os.Mkdir(e.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(program, filepath.Join(e.bin, Name)), os.Symlink(program, filepath.Join(e.bin, link.Program))); err != nil {
		t.Fatal(err)
	}
	for _, name := range bundled.Names() {
		e.plugin(name)
	}
	e.forget()
	return e
}

// plugin installs a bundled plugin, as flannel installs it where it is missing.
func (e *engine) plugin(name string) {
	e.Helper()
	if err := link.Make(filepath.Join(e.bin, name)); err != nil {
		e.Fatal(err)
	}
}

// ownProgram installs a bundled plugin as a program of its own, as a distribution
// does.
func (e *engine) ownProgram(name string) {
	e.Helper()
	err := os.Remove(filepath.Join(e.bin, name))
	if err == nil {
		err = os.Symlink(program, filepath.Join(e.bin, name))
	}
	if err != nil {
		e.Fatal(err)
	}
}

// breakPlugin installs a plugin that fails.
func (e *engine) breakPlugin(name string) {
	e.Helper()
	path := filepath.Join(e.bin, name)
	err := os.Remove(path)
	if err == nil {
		err = os.WriteFile(path, []byte("#!/bin/sh\necho '{\"code\": 100, \"msg\": \"broken\"}'\nexit 1\n"), 0o755)
	}
	if err != nil {
		e.Fatal(err)
	}
}

// forget makes the engine lose its own records of attachments.
func (e *engine) forget() {
	e.cni = libcni.NewCNIConfigWithCacheDir([]string{e.bin}, filepath.Join(e.TempDir(), "cache"), nil)
}

// ready writes subnet.env, as the daemon does.
func (e *engine) ready(env string) {
	e.Helper()
	if err := os.WriteFile(e.envTo, []byte(env), 0o600); err != nil {
		e.Fatal(err)
	}
}

func (e *engine) list(cniVersion string) *libcni.NetworkConfigList {
	e.Helper()
	delegate := map[string]any{"hairpinMode": true, "isDefaultGateway": true}
	maps.Copy(delegate, e.forces)
	portmap := map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}}
	maps.Copy(portmap, e.ports)
	text, err := json.Marshal(map[string]any{"cniVersion": cniVersion, "name": e.name, "plugins": []any{
		map[string]any{"type": Name, "subnetFile": e.envTo, "dataDir": filepath.Join(e.dir, "flannel"), "delegate": delegate,
			"ipam": map[string]any{"dataDir": filepath.Join(e.dir, "networks")}},
		portmap,
	}})
	if err != nil {
		e.Fatal(err)
	}
	list, err := libcni.NetworkConfFromBytes(text)
	if err != nil {
		e.Fatal(err)
	}
	return list
}

// runtime are the parameters of a container that is a namespace of the lab.
func (e *engine) runtime(container *netnstest.Host, ifname string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: container.Name(), NetNS: "/run/netns/" + container.Netns(), IfName: ifname}
}

func (e *engine) add(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) (result *current.Result, err error) {
	err = e.host.Do(func() error {
		r, err := e.cni.AddNetworkList(e.Context(), list, rt)
		if err == nil {
			result, err = current.NewResultFromResult(r)
		}
		return err
	})
	return result, err
}

func (e *engine) mustAdd(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *current.Result {
	e.Helper()
	result, err := e.add(list, rt)
	if err != nil {
		e.Fatalf("ADD of %s: %v", rt.ContainerID, err)
	}
	return result
}

func (e *engine) do(f func(context.Context) error) error {
	return e.host.Do(func() error { return f(e.Context()) })
}

func (e *engine) del(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	return e.do(func(ctx context.Context) error { return e.cni.DelNetworkList(ctx, list, rt) })
}

// reserved returns the addresses that host-local keeps.
func (e *engine) reserved() (addrs []string) {
	e.Helper()
	entries, err := os.ReadDir(filepath.Join(e.dir, "networks", e.name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		e.Fatal(err)
	}
	for _, entry := range entries {
		if _, err := netip.ParseAddr(entry.Name()); err == nil {
			addrs = append(addrs, entry.Name())
		}
	}
	return addrs
}

// saved returns the names of the saved configurations.
func (e *engine) saved() []string {
	e.Helper()
	return files(e.T, filepath.Join(e.dir, "flannel"))
}

// A pod's life with each version of the specification.
func TestLife(t *testing.T) {
	for _, v := range version.All.SupportedVersions() {
		if v == "0.1.0" || v == "0.2.0" { // they have no lists
			continue
		}
		t.Run(v, func(t *testing.T) { testLife(t, v) })
		t.Run(v+" with the distribution's plugins", func(t *testing.T) { testLife(t, v, "bridge", "host-local", "portmap") })
	}
}

func testLife(t *testing.T, cniVersion string, programs ...string) {
	e := newEngine(t)
	for _, name := range programs {
		e.ownProgram(name)
	}
	list, pod := e.list(cniVersion), e.lab.Namespace("pod")
	rt := e.runtime(pod, "eth0")
	_, err := e.add(list, rt)
	wantError(t, err, types.ErrTryAgainLater, e.envTo)
	status := func() error {
		return e.do(func(ctx context.Context) error { return e.cni.GetStatusNetworkList(ctx, list) })
	}
	check := func() error {
		return e.do(func(ctx context.Context) error { return e.cni.CheckNetworkList(ctx, list, rt) })
	}
	if cniVersion == "1.1.0" {
		wantError(t, status(), types.ErrPluginNotAvailable, e.envTo)
	}
	e.ready(envIPv4)
	if err := status(); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	result := e.mustAdd(list, rt)
	if len(result.IPs) != 1 || result.IPs[0].Address.String() != "10.1.17.2/24" || result.CNIVersion != current.ImplementedSpecVersion {
		t.Errorf("the result is %v", result)
	}
	if got := addrsOf(t, pod, "eth0"); !slices.Equal(got, []string{"10.1.17.2/24"}) {
		t.Errorf("the pod has %q", got)
	}
	if got := addrsOf(t, e.host, "cni0"); !slices.Equal(got, []string{"10.1.17.1/24"}) {
		t.Errorf("the bridge has %q", got)
	}
	if out, err := pod.Command(t.Context(), "ping", "-c1", "-W5", "10.1.17.1").CombinedOutput(); err != nil {
		t.Errorf("ping from the pod: %v\n%s", err, out)
	}
	if got := e.saved(); !slices.Equal(got, []string{"pod", "pod:eth0"}) {
		t.Errorf("saved is %q", got)
	}
	if cniVersion >= "0.4.0" {
		if err := check(); err != nil {
			t.Errorf("CHECK: %v", err)
		}
		pod.DelAddr("eth0", netip.MustParsePrefix("10.1.17.2/24"))
		if err := check(); err == nil || !strings.Contains(err.Error(), "CHECK by the plugin bridge") {
			t.Errorf("CHECK of a pod without its address: %v", err)
		}
	}
	if err := os.Remove(e.envTo); err != nil { // DEL does not need it
		t.Fatal(err)
	}
	for range 2 { // the engine repeats it
		if err := e.del(list, rt); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	if pod.HasLink("eth0") || len(e.reserved()) > 0 || len(e.saved()) > 0 {
		t.Errorf("after DEL: interface %v, addresses %q, saved %q", pod.HasLink("eth0"), e.reserved(), e.saved())
	}
	e.ready(envIPv4)
	if cniVersion >= "0.4.0" {
		wantError(t, check(), types.ErrUnknownContainer, "no saved configuration")
	}
}

func addrsOf(t *testing.T, h *netnstest.Host, link string) (addrs []string) {
	t.Helper()
	l, err := h.Netlink().LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	list, err := h.Netlink().AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		addrs = append(addrs, a.IPNet.String())
	}
	return addrs
}

// A pod gets an address and a default route of each family.
func TestDualStack(t *testing.T) {
	e := newEngine(t)
	e.ready(envDual)
	pod := e.lab.Namespace("pod")
	result := e.mustAdd(e.list("1.0.0"), e.runtime(pod, "eth0"))
	if len(result.IPs) != 2 || result.IPs[0].Address.String() != "10.1.17.2/24" || result.IPs[1].Address.String() != "fc00::2/64" {
		t.Errorf("the result is %v", result)
	}
	routes, err := pod.Netlink().RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	defaults := 0
	for _, r := range routes {
		if r.Gw != nil && (r.Dst == nil || strings.HasSuffix(r.Dst.String(), "/0")) {
			defaults++
		}
	}
	if defaults != 2 {
		t.Errorf("%d default routes: %v", defaults, routes)
	}
	if err := e.del(e.list("1.0.0"), e.runtime(pod, "eth0")); err != nil || len(e.reserved()) > 0 {
		t.Errorf("DEL: %v, addresses %q", err, e.reserved())
	}
}

// A DEL that fails can be repeated. It keeps the address until then.
func TestDelIsRepeated(t *testing.T) {
	e := newEngine(t)
	e.ready(envIPv4)
	list, rt := e.list("1.0.0"), e.runtime(e.lab.Namespace("pod"), "eth0")
	e.mustAdd(list, rt)
	for _, plugin := range []string{"bridge", "host-local"} {
		e.breakPlugin(plugin)
		err := e.del(list, rt)
		if err == nil || !strings.Contains(err.Error(), "broken") || len(e.saved()) == 0 || len(e.reserved()) == 0 {
			t.Errorf("with a broken %s: %v, saved %q, addresses %q", plugin, err, e.saved(), e.reserved())
		}
		e.plugin(plugin)
	}
	if err := e.del(list, rt); err != nil || len(e.saved()) > 0 || len(e.reserved()) > 0 {
		t.Errorf("DEL: %v, saved %q, addresses %q", err, e.saved(), e.reserved())
	}
}

// A build of a bundled plugin in CNI's folder is not started, as the bundled one runs in
// flannel's process. The builds here have no right to run: Debian's bridge, which has no
// version, and a host-local of the bundled version.
func TestSamePluginRunsInside(t *testing.T) {
	e := newEngine(t)
	e.ready(envIPv4)
	hostLocal := filepath.Join(e.dir, "host-local")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", hostLocal, "github.com/containernetworking/plugins/plugins/ipam/host-local")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build host-local: %v\n%s", err, out)
	}
	for plugin, from := range map[string]string{"bridge": "/usr/lib/cni/bridge", "host-local": hostLocal} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(e.bin, plugin)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, rt := e.list("1.0.0"), e.runtime(e.lab.Namespace("pod"), "eth0")
	if r := e.mustAdd(list, rt); len(r.IPs) != 1 || len(e.reserved()) != 1 {
		t.Errorf("ADD gives %v, addresses %q", r, e.reserved())
	}
	if err := e.del(list, rt); err != nil || len(e.reserved()) > 0 {
		t.Errorf("DEL: %v, addresses %q", err, e.reserved())
	}
}

// Two interfaces of one pod are deleted one by one.
func TestTwoInterfaces(t *testing.T) {
	e := newEngine(t)
	e.ready(envIPv4)
	list, pod := e.list("1.0.0"), e.lab.Namespace("pod")
	first, second := e.runtime(pod, "eth0"), e.runtime(pod, "net1")
	e.forces = map[string]any{"isDefaultGateway": false}
	e.mustAdd(list, first)
	e.mustAdd(e.list("1.0.0"), second)
	if len(e.reserved()) != 2 {
		t.Fatalf("addresses %q", e.reserved())
	}
	if err := e.del(list, first); err != nil || !slices.Equal(e.reserved(), []string{"10.1.17.3"}) || !pod.HasLink("net1") {
		t.Errorf("DEL of eth0: %v, addresses %q", err, e.reserved())
	}
	if err := e.del(list, second); err != nil || len(e.reserved()) > 0 || pod.HasLink("net1") || len(e.saved()) > 0 {
		t.Errorf("DEL of net1: %v, addresses %q, saved %q", err, e.reserved(), e.saved())
	}
}

// A pod that flannel-io/cni-plugin added has one file of the container's name.
func TestDelOfTheOtherProgramsPod(t *testing.T) {
	e := newEngine(t)
	e.ready(envIPv4)
	list, rt := e.list("1.0.0"), e.runtime(e.lab.Namespace("pod"), "eth0")
	e.mustAdd(list, rt)
	if err := os.Remove(filepath.Join(e.dir, "flannel", "pod:eth0")); err != nil {
		t.Fatal(err)
	}
	if err := e.del(list, rt); err != nil || len(e.reserved()) > 0 || len(e.saved()) > 0 {
		t.Errorf("DEL: %v, addresses %q, saved %q", err, e.reserved(), e.saved())
	}
}

// An unreadable file does not stop the pod's deletion.
func TestDelOfAnUnreadableFile(t *testing.T) {
	e := newEngine(t)
	e.ready(envIPv4)
	list, rt := e.list("1.0.0"), e.runtime(e.lab.Namespace("pod"), "eth0")
	a := attachments{filepath.Join(e.dir, "flannel")}
	for _, text := range []string{"{", `{"type": 5}`} {
		if err := a.save(attachment{"pod", "eth0"}, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := e.del(list, rt); err != nil || len(e.saved()) > 0 {
			t.Errorf("DEL with %q: %v, saved %q", text, err, e.saved())
		}
	}
}

// The errors of the delegate name the remedy: a bridge of an earlier subnet, and a
// plugin that is missing.
func TestRemedies(t *testing.T) {
	e := newEngine(t)
	e.ready(envIPv4)
	list, pod := e.list("1.0.0"), e.lab.Namespace("pod")
	e.host.Bridge("cni0", netip.MustParsePrefix("10.9.9.1/24"), 0)
	_, err := e.add(list, e.runtime(pod, "eth0"))
	wantError(t, err, types.ErrInternal, "ip link delete")
	if err := e.del(list, e.runtime(pod, "eth0")); err != nil || len(e.reserved()) > 0 {
		t.Errorf("DEL after a failed ADD: %v, addresses %q", err, e.reserved())
	}
	if err := os.Remove(filepath.Join(e.bin, "bridge")); err != nil {
		t.Fatal(err)
	}
	_, err = e.add(list, e.runtime(pod, "eth0"))
	wantError(t, err, types.ErrInvalidNetworkConfig, "flannel install-cni")
}

// GC deletes what is left of pods that do not exist, of this network alone: saved
// attachments, files of the other program, and addresses without either.
func TestGC(t *testing.T) {
	e := newEngine(t)
	e.ready(envIPv4)
	list := e.list("1.1.0")
	live := e.runtime(e.lab.Namespace("live"), "eth0")
	e.mustAdd(list, live)
	for _, name := range []string{"dead", "theirs", "lost"} {
		e.mustAdd(list, e.runtime(e.lab.Namespace(name), "eth0"))
	}
	folder := filepath.Join(e.dir, "flannel")
	for _, name := range []string{"theirs:eth0", "lost:eth0", "lost"} {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	e.name = "another"
	e.forces = map[string]any{"bridge": "cni1"}
	e.mustAdd(e.list("1.1.0"), e.runtime(e.lab.Namespace("other"), "eth0"))
	e.name = "cbr0"
	if len(e.reserved()) != 4 {
		t.Fatalf("addresses %q", e.reserved())
	}
	e.forget() // else libcni itself deletes those that it knows
	gc := func(valid ...types.GCAttachment) error {
		return e.do(func(ctx context.Context) error {
			return e.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid})
		})
	}
	e.breakPlugin("bridge")
	if err := gc(types.GCAttachment{ContainerID: "live", IfName: "eth0"}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("GC with a broken bridge: %v", err)
	}
	e.plugin("bridge")
	if err := gc(types.GCAttachment{ContainerID: "live", IfName: "eth0"}); err != nil {
		t.Errorf("GC: %v", err)
	}
	if got := e.saved(); !slices.Equal(got, []string{"live", "live:eth0", "other", "other:eth0"}) {
		t.Errorf("saved is %q", got)
	}
	if got := e.reserved(); !slices.Equal(got, []string{"10.1.17.2"}) {
		t.Errorf("addresses %q", got)
	}
	if err := gc(); err != nil || len(e.reserved()) > 0 {
		t.Errorf("GC without a pod: %v, addresses %q", err, e.reserved())
	}
}

// Each plugin of the binary names the versions that it supports.
func TestVersions(t *testing.T) {
	e := newEngine(t)
	for _, name := range append(bundled.Names(), Name) {
		info, err := e.cni.GetVersionInfo(t.Context(), name)
		if err != nil || fmt.Sprint(info.SupportedVersions()) != "[0.1.0 0.2.0 0.3.0 0.3.1 0.4.0 1.0.0 1.1.0]" {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// The old versions have no lists. Their result has one address.
func TestOldVersions(t *testing.T) {
	for _, v := range []string{"0.1.0", "0.2.0"} {
		e := newEngine(t)
		e.ready(envIPv4)
		list := e.list("1.0.0")
		conf, err := libcni.InjectConf(list.Plugins[0], map[string]any{"cniVersion": v, "name": "cbr0"})
		if err != nil {
			t.Fatal(err)
		}
		rt := e.runtime(e.lab.Namespace("pod"), "eth0")
		err = e.do(func(ctx context.Context) error {
			result, err := e.cni.AddNetwork(ctx, conf, rt)
			var text bytes.Buffer
			if err == nil {
				err = result.PrintTo(&text)
			}
			if err == nil && !strings.Contains(text.String(), "10.1.17.2/24") {
				err = fmt.Errorf("the result is %s", &text)
			}
			return errors.Join(err, e.cni.DelNetwork(ctx, conf, rt))
		})
		if err != nil || len(e.reserved()) > 0 {
			t.Errorf("%s: %v, addresses %q", v, err, e.reserved())
		}
	}
}

// The error of an ADD before the daemon is ready has the daemon's reason.
func TestDaemonsReason(t *testing.T) {
	e := newEngine(t)
	listener, err := e.host.Listen(t.Context(), "tcp", "127.0.0.1:8286")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "Node n1 has no podCIDR")
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer func() {
		if err := errors.Join(server.Close(), <-ended); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	_, err = e.add(e.list("1.0.0"), e.runtime(e.lab.Namespace("pod"), "eth0"))
	wantError(t, err, types.ErrTryAgainLater, "the daemon is not ready: Node n1 has no podCIDR")
}

// The bundled portmap publishes a pod's port on the host, by iptables or nftables.
func TestPortmap(t *testing.T) {
	e := newEngine(t)
	e.ready(envIPv4)
	list, pod, client := e.list("1.0.0"), e.lab.Namespace("pod"), e.lab.Host("client")
	rt := e.runtime(pod, "eth0")
	rt.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
	e.mustAdd(list, rt)
	listener, err := pod.Listen(t.Context(), "tcp", "10.1.17.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return // closed
			}
			c.Close()
		}
	}()
	port := e.host.Addr().Addr().String() + ":8080"
	c, err := client.Dial(t.Context(), "tcp", port)
	if err != nil {
		t.Fatalf("connect to the pod's port on the host: %v", err)
	}
	c.Close()
	if err := e.do(func(ctx context.Context) error { return e.cni.CheckNetworkList(ctx, list, rt) }); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := e.del(list, rt); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if c, err := client.Dial(t.Context(), "tcp", port); err == nil {
		c.Close()
		t.Error("the port is published after DEL")
	}
}

// The bundled loopback turns a container's loopback on.
func TestLoopback(t *testing.T) {
	e := newEngine(t)
	pod := e.lab.Namespace("pod")
	pod.Down("lo")
	conf, err := libcni.NetworkPluginConfFromBytes([]byte(`{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}`))
	if err != nil {
		t.Fatal(err)
	}
	err = e.do(func(ctx context.Context) error {
		_, err := e.cni.AddNetwork(ctx, conf, e.runtime(pod, "lo"))
		return err
	})
	if got := addrsOf(t, pod, "lo"); err != nil || !slices.Equal(got, []string{"127.0.0.1/8"}) {
		t.Errorf("loopback: %v, %q", err, got)
	}
}

// Only the name flannel may mean the daemon: the names of other plugins never do.
func TestIsPlugin(t *testing.T) {
	for _, c := range []struct {
		program, command string
		want             bool
	}{
		{"/opt/cni/bin/flannel", "ADD", true},
		{"/opt/cni/bin/flannel", "", false},
		{"/opt/bin/flanneld", "ADD", false},
		{"/opt/cni/bin/bridge", "ADD", true},
		{"/opt/cni/bin/host-local", "", true},
	} {
		t.Setenv("CNI_COMMAND", c.command)
		if got := IsPlugin(c.program); got != c.want {
			t.Errorf("%s with the command %q is a plugin: %v", c.program, c.command, got)
		}
	}
}

// Without a command a plugin describes itself.
func TestAbout(t *testing.T) {
	for _, name := range []string{Name, "bridge"} {
		link := filepath.Join(t.TempDir(), name)
		if err := os.Symlink(program, link); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), link).CombinedOutput()
		if err != nil || !strings.Contains(string(out), name+" plugin") && !strings.Contains(string(out), "plugin "+name) {
			t.Errorf("%s without a command: %v\n%s", name, err, out)
		}
	}
}
