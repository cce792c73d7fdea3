package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/utils"
)

// GC removes the rules by which portmap and bridge serve pods that do not exist, of this
// network alone. Rules of iptables name their pod, so that nothing else has to.
func TestGCRemovesRules(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) { testGCRemovesRules(t, backend) })
	}
}

func testGCRemovesRules(t *testing.T, backend string) {
	e := newEngine(t)
	e.forces = map[string]any{"ipMasq": true, "ipMasqBackend": backend}
	e.ports = map[string]any{"backend": backend}
	e.ready(envDual)
	list := e.list("1.1.0")
	for i, name := range []string{"live", "dead", "lost"} {
		e.addWithPort(list, name, 8001+i)
	}
	if backend == "iptables" {
		e.loseRecords("lost", "10.1.17.4", "fc00::4")
	}
	e.name, e.forces["bridge"] = "another", "cni1"
	e.ready(strings.NewReplacer("10.1.17.", "10.1.18.", "fc00::", "fc00:1::").Replace(envDual))
	e.addWithPort(e.list("1.1.0"), "other", 8004)
	e.name = "cbr0"
	e.ready(envDual)

	e.forget()
	err := e.do(func(ctx context.Context) error {
		return e.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "live", IfName: "eth0"}}})
	})
	if err != nil {
		t.Errorf("GC: %v", err)
	}
	rules := e.rules()
	for _, left := range []string{"10.1.17.2", "fc00::2", "8001", "10.1.18.2", "fc00:1::2", "8004"} {
		if !strings.Contains(rules, left) {
			t.Errorf("no rule has %s of a pod that exists, or of another network", left)
		}
	}
	for _, gone := range []string{"10.1.17.3", "fc00::3", "8002", "10.1.17.4", "fc00::4", "8003",
		utils.FormatChainName("cbr0", "dead"), utils.MustFormatChainNameWithPrefix("cbr0", "lost", "DN-")} {
		if strings.Contains(rules, gone) {
			t.Errorf("a rule has %s of a pod that does not exist", gone)
		}
	}
	if t.Failed() {
		t.Log(rules)
	}
}

// addWithPort adds a pod with a port of the host.
func (e *engine) addWithPort(list *libcni.NetworkConfigList, name string, port int) {
	e.Helper()
	rt := e.runtime(e.lab.Namespace(name), "eth0")
	rt.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": port, "containerPort": 80, "protocol": "tcp"}}}
	e.mustAdd(list, rt)
	if rules := e.rules(); !strings.Contains(rules, fmt.Sprint(port)) {
		e.Fatalf("no rule has the port %d:\n%s", port, rules)
	}
}

// loseRecords removes what flannel and host-local have saved of a pod.
func (e *engine) loseRecords(name string, addrs ...string) {
	e.Helper()
	saved := filepath.Join(e.dir, "flannel", name)
	errs := []error{os.Remove(saved), os.Remove(saved + separator + "eth0")}
	for _, a := range addrs {
		errs = append(errs, os.Remove(filepath.Join(e.dir, "networks", e.name, a)))
	}
	if err := errors.Join(errs...); err != nil {
		e.Fatal(err)
	}
}

// rules returns the host's rules of iptables and nftables.
func (e *engine) rules() string {
	e.Helper()
	var all []byte
	for _, command := range [][]string{{"iptables-save", "-t", "nat"}, {"ip6tables-save", "-t", "nat"}, {"nft", "list", "ruleset"}} {
		out, err := e.host.Command(e.Context(), command[0], command[1:]...).CombinedOutput()
		if err != nil {
			e.Fatalf("%q: %v\n%s", command, err, out)
		}
		all = append(all, out...)
	}
	return string(all)
}
