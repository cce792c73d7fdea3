package kubernetes

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/coreos/flannel/contrib/kubernetes/render"
	"github.com/coreos/flannel/daemon"
)

const pod = "spec.template.spec"

// values are sets of values that users of kube-flannel's chart set.
var values = map[string]object{
	"default":      nil,
	"udp":          {"flannel": object{"backend": "udp", "backendPort": 8290}},
	"wireguard":    {"flannel": object{"backend": "wireguard", "psk": "secret", "keepaliveInterval": 25, "tunnelMode": "ipv4", "backendPort": 51900, "backendPortv6": 51901, "mtu": 1500}},
	"vxlan":        {"flannel": object{"vni": 4096, "backendPort": 4789, "GBP": true, "directRouting": true, "mtu": 9000, "macPrefix": "0E-2A", "enableNFTables": true}},
	"ipv6":         {"podCidr": "", "podCidrv6": "fd00:10::/48"},
	"dual stack":   {"podCidrv6": "fd00:10::/48", "flannel": object{"backend": "host-gw"}},
	"netpol":       {"netpol": object{"enabled": true}},
	"no conf":      {"flannel": object{"skipCNIConfigInstallation": true}},
	"other folder": {"flannel": object{"cniBinDir": "/var/lib/rancher/k3s/data/cni", "cniConfDir": "/var/lib/rancher/k3s/agent/etc/cni/net.d"}},
	"labels": {"global": object{"imagePullSecrets": []any{object{"name": "s"}}, "commonLabels": object{"team": "a"}, "commonAnnotations": object{"note": "b"}},
		"flannel": object{"nodeSelector": object{"zone": "c"}, "tolerations": []any{}}},
	"image": {"flannel": object{"image": object{"repository": "registry.example/f", "tag": "v9"}}},
}

// Users' scripts and patches name these objects.
func TestNames(t *testing.T) {
	all := objects(t, namespace+renderNew(t, nil))
	for _, o := range [][2]string{
		{"Namespace", "kube-flannel"}, {"ServiceAccount", "flannel"}, {"ClusterRole", "flannel"}, {"ClusterRoleBinding", "flannel"},
		{"ConfigMap", "kube-flannel-cfg"}, {"DaemonSet", "kube-flannel-ds"},
	} {
		find(t, all, o[0], o[1])
	}
	ds := find(t, all, "DaemonSet", "kube-flannel-ds")
	for path, want := range map[string]string{
		"spec.selector.matchLabels":                             "map[app:flannel]",
		"spec.template.metadata.labels":                         "map[app:flannel tier:node]",
		pod + ".containers.kube-flannel.command":                "[/opt/bin/flanneld]",
		pod + ".initContainers.install-cni-plugin.command":      "[/opt/bin/flanneld]",
		pod + ".hostNetwork":                                    "true",
		pod + ".priorityClassName":                              "system-node-critical",
		pod + ".tolerations":                                    "[map[effect:NoExecute operator:Exists] map[effect:NoSchedule operator:Exists]]",
		pod + ".volumes.run.hostPath.path":                      "/run/flannel",
		pod + ".containers.kube-flannel.readinessProbe.httpGet": "map[path:/readyz port:8081]",
	} {
		if got := fmt.Sprint(at(t, ds, path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

// Whatever the values are, the arguments exist, each mount has its volume, and the
// configurations are valid.
func TestEachSetOfValues(t *testing.T) {
	for name, over := range values {
		t.Run(name, func(t *testing.T) {
			all := objects(t, renderNew(t, over))
			ds := find(t, all, "DaemonSet", "kube-flannel-ds")
			checkArguments(t, at(t, ds, pod+".containers.kube-flannel.args"))
			checkMounts(t, ds)
			config := find(t, all, "ConfigMap", "kube-flannel-cfg")
			if _, err := libcni.NetworkConfFromBytes([]byte(at(t, config, "data").(object)["cni-conf.json"].(string))); err != nil {
				t.Errorf("cni-conf.json: %v", err)
			}
			var network any
			if err := json.Unmarshal([]byte(at(t, config, "data").(object)["net-conf.json"].(string)), &network); err != nil {
				t.Errorf("net-conf.json: %v", err)
			}
		})
	}
}

func checkArguments(t *testing.T, args any) {
	t.Helper()
	fs := daemon.Flags()
	fs.SetOutput(io.Discard)
	var list []string
	for _, a := range args.([]any) {
		list = append(list, a.(string))
	}
	if err := fs.Parse(list); err != nil || fs.NArg() > 0 {
		t.Errorf("the daemon refuses %q: %v", list, err)
	}
}

// checkMounts checks that each mount has a volume, and each volume a mount.
func checkMounts(t *testing.T, ds object) {
	t.Helper()
	volumes := make(map[string]int)
	for _, v := range at(t, ds, pod+".volumes").([]any) {
		volumes[nameOf(v)] = 0
	}
	for _, list := range []string{".initContainers", ".containers"} {
		for _, c := range at(t, ds, pod+list).([]any) {
			for _, m := range c.(object)["volumeMounts"].([]any) {
				if _, there := volumes[nameOf(m)]; !there {
					t.Errorf("%s mounts %s, which is no volume", nameOf(c), nameOf(m))
				}
				volumes[nameOf(m)]++
			}
		}
	}
	for name, mounts := range volumes {
		if mounts == 0 {
			t.Errorf("nothing mounts the volume %s", name)
		}
	}
}

// net-conf.json for values of the chart.
func TestNetConf(t *testing.T) {
	for name, want := range map[string]string{
		"default":    `{"Backend":{"Type":"vxlan"},"Network":"10.244.0.0/16"}`,
		"udp":        `{"Backend":{"Port":8290,"Type":"udp"},"Network":"10.244.0.0/16"}`,
		"wireguard":  `{"Backend":{"ListenPort":51900,"ListenPortV6":51901,"MTU":1500,"Mode":"ipv4","PSK":"secret","PersistentKeepaliveInterval":25,"Type":"wireguard"},"Network":"10.244.0.0/16"}`,
		"vxlan":      `{"Backend":{"DirectRouting":true,"GBP":true,"MTU":9000,"MacPrefix":"0E-2A","Port":4789,"Type":"vxlan","VNI":4096},"EnableNFTables":true,"Network":"10.244.0.0/16"}`,
		"ipv6":       `{"Backend":{"Type":"vxlan"},"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10::/48"}`,
		"dual stack": `{"Backend":{"Type":"host-gw"},"EnableIPv6":true,"IPv6Network":"fd00:10::/48","Network":"10.244.0.0/16"}`,
	} {
		config := find(t, objects(t, renderNew(t, values[name])), "ConfigMap", "kube-flannel-cfg")
		var conf any
		if err := json.Unmarshal([]byte(at(t, config, "data").(object)["net-conf.json"].(string)), &conf); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := json.Marshal(conf); err != nil || string(got) != want {
			t.Errorf("%s: net-conf.json is\n%s, %v, want\n%s", name, got, err, want)
		}
	}
}

// rights lists what the objects permit: each capability, mount, and verb.
func rights(t *testing.T, all []object) (list []string) {
	t.Helper()
	ds := find(t, all, "DaemonSet", "kube-flannel-ds")
	for _, c := range slices.Concat(at(t, ds, pod+".initContainers").([]any), at(t, ds, pod+".containers").([]any)) {
		security := c.(object)["securityContext"].(object)
		list = append(list, fmt.Sprintf("%s privileged=%v escalation=%v readOnly=%v drop=%v add=%v", nameOf(c), security["privileged"],
			security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"], at(t, security, "capabilities.drop"), at(t, security, "capabilities.add")))
	}
	for _, rule := range find(t, all, "ClusterRole", "flannel")["rules"].([]any) {
		r := rule.(object)
		for _, resource := range r["resources"].([]any) {
			list = append(list, fmt.Sprintf("%v %v", resource, r["verbs"]))
		}
	}
	sort.Strings(list)
	return list
}

// The pod is not privileged. The kernel data path of udp needs two capabilities more.
func TestRights(t *testing.T) {
	base := []string{
		"events [create]",
		"install-cni-plugin privileged=false escalation=false readOnly=true drop=[ALL] add=<nil>",
		"kube-flannel privileged=false escalation=false readOnly=true drop=[ALL] add=[NET_ADMIN NET_RAW]",
		"nodes [get list watch]",
		"nodes/status [patch]",
		"pods [get]",
	}
	if got := rights(t, objects(t, renderNew(t, nil))); !slices.Equal(got, base) {
		t.Errorf("the rights are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(base, "\n"))
	}
	udp := objects(t, renderNew(t, values["udp"]))
	if got := rights(t, udp); !slices.Contains(got, strings.Replace(base[2], "NET_RAW", "NET_RAW BPF PERFMON", 1)) {
		t.Errorf("the rights with udp are\n%s", strings.Join(got, "\n"))
	}
	ds := find(t, udp, "DaemonSet", "kube-flannel-ds")
	for _, path := range []string{"tun", "bpf"} {
		if at(t, ds, pod+".volumes."+path) == nil {
			t.Errorf("udp has no volume %s", path)
		}
	}
}

func TestOptions(t *testing.T) {
	netpol := objects(t, renderNew(t, values["netpol"]))
	if c := at(t, find(t, netpol, "DaemonSet", "kube-flannel-ds"), pod+".containers.kube-network-policies"); c == nil {
		t.Error("netpol has no container")
	}
	if got := rights(t, netpol); !slices.Contains(got, "networkpolicies [list watch]") {
		t.Errorf("the rights with netpol are %q", got)
	}
	args := func(name string) string {
		return fmt.Sprint(at(t, find(t, objects(t, renderNew(t, values[name])), "DaemonSet", "kube-flannel-ds"), pod+".containers.kube-flannel.args"))
	}
	if a := args("default"); !strings.Contains(a, "--cni-conf=/etc/kube-flannel/cni-conf.json") {
		t.Errorf("the arguments are %s", a)
	}
	if a := args("no conf"); strings.Contains(a, "cni-conf") {
		t.Errorf("the arguments without a configuration are %s", a)
	}
	// The kubelet probes a node's first address, which is of IPv6 there.
	if a := args("ipv6"); !strings.Contains(a, "--healthz-ip=::") || strings.Contains(args("dual stack"), "--healthz-ip") {
		t.Errorf("the arguments with IPv6 only are %s", a)
	}
	find(t, objects(t, renderNew(t, nil)), "ValidatingAdmissionPolicyBinding", "flannel-own-node-only")
	for _, text := range []string{renderFor(t, before, nil, render.Order...), renderNew(t, object{"flannel": object{"ownNodeOnly": false}})} {
		if strings.Contains(text, "ValidatingAdmissionPolicy") {
			t.Error("there is a policy without the API server's support, or against the value")
		}
	}
	image := find(t, objects(t, renderNew(t, values["image"])), "DaemonSet", "kube-flannel-ds")
	for _, c := range []string{"initContainers.install-cni-plugin", "containers.kube-flannel"} {
		if got := at(t, image, pod+"."+c+".image"); got != "registry.example/f:v9" {
			t.Errorf("the image of %s is %v", c, got)
		}
	}
}
