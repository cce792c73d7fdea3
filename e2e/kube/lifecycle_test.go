package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/e2e/kube/controlplane"
)

// prefix begins the annotations that all flannels share.
const prefix = "flannel.alpha.coreos.com/"

// A host that starts before everything else waits, says for what, and goes on as
// soon as it comes. Then the Node shows what the cluster needs to know.
func TestStart(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	n := r.node("n1")
	n.configure(`{"Network":"10.9.0.0/16","Backend":{"Type":"vxlan"}}`)
	r.control.Kill("kube-apiserver")
	d := n.launch()
	d.waits("connection refused")
	r.control.StartAPIServer()
	d.waits("Node object does not exist")
	r.control.AddNode("n1")
	d.waits("has no podCIDR")
	r.control.Patch("/api/v1/nodes/n1", map[string]any{"spec": map[string]any{"podCIDR": "10.5.3.0/24", "podCIDRs": []string{"10.5.3.0/24"}}})
	d.waits("podCIDR 10.5.3.0/24, and Network is 10.9.0.0/16")
	n.configure(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	d.ready()

	if env := n.env(); env["FLANNEL_NETWORK"] != "10.5.0.0/16" || env["FLANNEL_SUBNET"] != "10.5.3.1/24" || env["FLANNEL_IPMASQ"] != "true" {
		t.Errorf("subnet.env is %v", env)
	}
	r.eventually("condition and event of the Node", func() error {
		o, _ := r.control.Node("n1")
		for _, c := range o.Status.Conditions {
			if c.Type == "NetworkUnavailable" && c.Status == "False" && c.Reason == "FlannelIsUp" {
				if strings.Contains(strings.Join(r.control.Events("n1"), "\n"), "FlannelReady") {
					return nil
				}
				return errors.New("no event")
			}
		}
		return fmt.Errorf("conditions are %v", o.Status.Conditions)
	})
	o, _ := r.control.Node("n1")
	for suffix, want := range map[string]string{"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": n.Addr().Addr().String()} {
		if have := o.Metadata.Annotations[prefix+suffix]; have != want {
			t.Errorf("annotation %s is %q, want %q", suffix, have, want)
		}
	}
	if data := o.Metadata.Annotations[prefix+"backend-data"]; !strings.HasPrefix(data, `{"VNI":1,"VtepMAC":"`) {
		t.Errorf("backend-data is %s", data)
	}
}

// A daemon that is killed and replaced loses no packet, also in a container with
// an empty state folder: the device and its MAC stay.
func TestReplace(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{ClusterCIDR: "10.5.0.0/16"})
	nodes, daemons := r.join("n1", "n2")
	before, _ := r.control.Node("n1")
	// As the controller of a cloud's routes does.
	r.control.Patch("/api/v1/nodes/n1/status", map[string]any{"status": map[string]any{"conditions": []any{
		map[string]any{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}}}})
	r.eventually("the taint of a network that is not there", func() error {
		if !unavailable(r, "n1") {
			return errors.New("there is none")
		}
		return nil
	})
	f := r.startFlow(nodes[1], nodes[0])
	for i := range 3 {
		daemons[0].kill()
		daemons[0] = nodes[0].launch(fmt.Sprintf("--state-dir=%s/state-%d", nodes[0].dir, i)).ready()
	}
	r.connected(nodes...)
	if lost, sent := f.lost(); lost > 0 {
		t.Errorf("%d of %d packets are lost", lost, sent)
	}
	after, _ := r.control.Node("n1")
	name, err := flannel()
	if err != nil {
		t.Fatal(err)
	}
	leases := nodes[0].run(name, "leases", "-kube-subnet-mgr", "-kubeconfig-file="+nodes[0].dir+"/kubeconfig")
	for _, n := range nodes {
		if !strings.Contains(leases, n.gateway().Masked().String()) || !strings.Contains(leases, n.name) {
			t.Errorf("flannel leases lacks %s:\n%s", n.name, leases)
		}
	}
	r.eventually("no taint", func() error {
		if unavailable(r, "n1") {
			return errors.New("the Node has the taint of a network that is not there")
		}
		return nil
	})
	showsFault(r, nodes[0], nodes[1].gateway())
	if a, b := before.Metadata.Annotations[prefix+"backend-data"], after.Metadata.Annotations[prefix+"backend-data"]; a != b {
		t.Errorf("backend-data was %s, and is %s", a, b)
	}
}

// showsFault gives a host a fault that lasts. The Node shows it by condition, event and taint
// until it ends.
func showsFault(r *rig, n *node, peer netip.Prefix) {
	r.t.Helper()
	foreign := []string{netip.PrefixFrom(peer.Masked().Addr(), peer.Bits()+1).String(), "dev", "lo"}
	n.run("ip", append([]string{"route", "add"}, foreign...)...)
	shows := func(unavailable bool, words string) {
		r.t.Helper()
		r.eventually("condition, event and taint of "+n.name, func() error { return condition(r, n.name, unavailable, words) })
	}
	shows(true, peer.Masked().String())
	n.run("ip", append([]string{"route", "del"}, foreign...)...)
	shows(false, "Flannel is running on this node")
}

// condition checks what a Node shows of its network.
func condition(r *rig, node string, want bool, words string) error {
	status := map[bool]string{true: "True", false: "False"}[want]
	o, _ := r.control.Node(node)
	for _, c := range o.Status.Conditions {
		if c.Type != "NetworkUnavailable" {
			continue
		}
		if c.Status != status || !strings.Contains(c.Message, words) {
			return fmt.Errorf("the condition is %+v", c)
		}
		if has := unavailable(r, node); has != want {
			return fmt.Errorf("the Node has the taint: %v, want %v", has, want)
		}
		if events := strings.Join(r.control.Events(node), "\n"); !strings.Contains(events, words) {
			return fmt.Errorf("the events are %s", events)
		}
		return nil
	}
	return fmt.Errorf("conditions are %v", o.Status.Conditions)
}

// unavailable reports whether a Node has the taint of NetworkUnavailable.
func unavailable(r *rig, node string) bool {
	o, _ := r.control.Node(node)
	for _, taint := range o.Spec.Taints {
		if taint.Key == "node.kubernetes.io/network-unavailable" {
			return true
		}
	}
	return false
}

// Annotations that another controller removes are back at once. A Node that is
// deleted leaves the mesh; with a new one, the host is back.
func TestNodeObject(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	nodes, daemons := r.join("n1", "n2")
	f := r.startFlow(nodes[1], nodes[0])
	r.control.Annotate("n1", map[string]any{prefix + "backend-data": nil})
	r.eventually("the annotation", func() error { return annotated(r, "n1", "backend-data") })
	if lost, sent := f.lost(); lost > 0 {
		t.Errorf("%d of %d packets are lost while the annotation is gone", lost, sent)
	}

	r.control.Delete("/api/v1/nodes/n1")
	r.eventually("n2 without a route to n1", func() error {
		if routes := nodes[1].run("ip", "route"); strings.Contains(routes, "10.5.1.0/24") {
			return errors.New(routes)
		}
		return nil
	})
	r.control.AddNode("n1", "10.5.1.0/24")
	r.eventually("the annotations of the new Node", func() error { return annotated(r, "n1", "backend-data") })
	r.connected(nodes...)

	// With another podCIDR the host has another subnet: the daemon ends, and its pod's
	// successor takes it.
	r.control.Delete("/api/v1/nodes/n1")
	r.control.AddNode("n1", "10.5.7.0/24")
	<-daemons[0].Ended()
	daemons[0] = nodes[0].launch().ready()
	if env := nodes[0].env(); env["FLANNEL_SUBNET"] != "10.5.7.1/24" {
		t.Errorf("subnet.env is %v", env)
	}
}

func annotated(r *rig, name, suffix string) error {
	o, ok := r.control.Node(name)
	if !ok || o.Metadata.Annotations[prefix+suffix] == "" {
		return fmt.Errorf("annotations are %v", o.Metadata.Annotations)
	}
	return nil
}
