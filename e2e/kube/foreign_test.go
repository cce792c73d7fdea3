package kube

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/coreos/flannel/e2e/kube/controlplane"
)

// A host of another flannel publishes annotations and programs its kernel as they
// are documented. Both directions work, and its leaving removes it.
func TestForeignHost(t *testing.T) {
	t.Parallel()
	for backend, test := range map[string]struct {
		data string
		join func(foreign *node, o controlplane.Node)
	}{
		"vxlan":   {`{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:0f"}`, joinVXLAN},
		"host-gw": {"null", joinHostGW},
	} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, controlplane.Options{})
			ours, foreign := r.node("n1"), r.node("n2")
			config := fmt.Sprintf(`{"Network":"10.5.0.0/16","Backend":{"Type":%q}}`, backend)
			ours.configure(config)
			r.control.AddNode("n1", "10.5.1.0/24")
			r.control.AddNode("n2", "10.5.2.0/24")
			ours.launch().ready()
			ours.addPod()
			o, _ := r.control.Node("n1")

			foreign.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
			test.join(foreign, o)
			foreign.Bridge("cni0", prefixOf("10.5.2.1/24"), 1450)
			foreign.container = foreign.Container("n2-pod", "cni0", prefixOf("10.5.2.2/24"), prefixOf("10.5.2.1/24").Addr(), 1450)
			r.control.Annotate("n2", map[string]any{
				prefix + "kube-subnet-manager": "true", prefix + "backend-type": backend,
				prefix + "backend-data": test.data, prefix + "public-ip": foreign.Addr().Addr().String(),
			})
			r.eventually("ping from ours", func() error { return r.ping(ours.container, prefixOf("10.5.2.2/24").Addr()) })
			r.eventually("ping to ours", func() error { return r.ping(foreign.container, ours.podAddr()) })

			r.control.Delete("/api/v1/nodes/n2")
			r.eventually("no route to the host that has left", func() error {
				if routes := ours.run("ip", "route"); strings.Contains(routes, "10.5.2.0/24") {
					return errors.New(routes)
				}
				return nil
			})
		})
	}
}

// joinVXLAN makes device, neighbour, FDB entry and route of a VXLAN host.
func joinVXLAN(foreign *node, o controlplane.Node) {
	_, mac, _ := strings.Cut(o.Metadata.Annotations[prefix+"backend-data"], `"VtepMAC":"`)
	mac = strings.TrimSuffix(mac, `"}`)
	foreign.run("ip", "link", "add", "flannel.1", "address", "aa:bb:cc:dd:ee:0f", "type", "vxlan", "id", "1", "dstport", "8472",
		"local", foreign.Addr().Addr().String(), "dev", "eth0", "nolearning")
	foreign.run("ip", "addr", "add", "10.5.2.0/32", "dev", "flannel.1")
	foreign.run("ip", "link", "set", "flannel.1", "mtu", "1450", "up")
	foreign.run("ip", "neigh", "add", "10.5.1.0", "lladdr", mac, "dev", "flannel.1", "nud", "permanent")
	foreign.run("bridge", "fdb", "add", mac, "dev", "flannel.1", "dst", o.Metadata.Annotations[prefix+"public-ip"])
	foreign.run("ip", "route", "add", "10.5.1.0/24", "via", "10.5.1.0", "dev", "flannel.1", "onlink")
}

// joinHostGW makes the route of a host-gw host.
func joinHostGW(foreign *node, o controlplane.Node) {
	foreign.run("ip", "route", "add", "10.5.1.0/24", "via", o.Metadata.Annotations[prefix+"public-ip"], "dev", "eth0")
}
