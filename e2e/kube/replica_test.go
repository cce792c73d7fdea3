package kube

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/e2e/kube/controlplane"
	"github.com/coreos/flannel/pkg/netnstest"
)

// Of two API servers behind the service's address, each one dies once, without a word to
// its clients. A daemon moves to the other one, and another daemon starts meanwhile.
func TestOneOfTwoAPIServers(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	first := r.api.Addr().Addr()
	second := netip.MustParseAddr("192.168.77.250")
	r.api.AddAddr("eth0", netip.PrefixFrom(second, r.api.Addr().Bits()))
	r.control.StartSecond(second)
	join := func(number int) *node {
		n := r.node(fmt.Sprintf("n%d", number))
		n.serve(first, second)
		n.write("kubeconfig", r.control.KubeconfigAt("https://"+serviceAddr+":6443", controlplane.FlannelToken))
		r.control.AddNode(n.name, fmt.Sprintf("10.5.%d.0/24", number))
		n.launch().ready()
		return n
	}
	nodes := []*node{join(1)}
	for i, dead := range []netip.Addr{first, second} {
		cutOff(r.api, dead)
		nodes = append(nodes, join(i+2)) // its route has to come to all of them
		for _, a := range nodes {
			began := time.Now()
			r.eventually(fmt.Sprintf("routes of %s with %v dead", a.name, dead), func() error {
				routes := a.run("ip", "route")
				for _, b := range nodes {
					if a != b && !strings.Contains(routes, b.gateway().Masked().String()) {
						return fmt.Errorf("no route to %s:\n%s", b.name, routes)
					}
				}
				return nil
			})
			t.Logf("%s has all routes %v after it is looked at, with %v dead", a.name, time.Since(began).Round(time.Millisecond), dead)
		}
		r.api.Exec("nft delete table ip cut")
	}
}

// cutOff ends an address of a host for all others, as a power cut does.
func cutOff(h *netnstest.Host, addr netip.Addr) {
	h.Exec("nft add table ip cut")
	h.Exec("nft add chain ip cut input { type filter hook input priority 0; }")
	h.Exec("nft add chain ip cut output { type filter hook output priority 0; }")
	h.Exec("nft add rule ip cut input iifname eth0 ip daddr " + addr.String() + " drop")
	h.Exec("nft add rule ip cut output oifname eth0 ip saddr " + addr.String() + " drop")
}

// serviceAddr is the address of the API servers' service.
const serviceAddr = "10.96.0.1"

// serve leads connections to the service to each of its servers by turns, as kube-proxy
// does.
func (n *node) serve(servers ...netip.Addr) {
	n.rig.t.Helper()
	var ends []string
	for i, s := range servers {
		ends = append(ends, fmt.Sprintf("%d : %v", i, s))
	}
	n.Exec("nft add table ip service")
	n.Exec("nft -- add chain ip service output { type nat hook output priority -100; }")
	n.Exec(fmt.Sprintf("nft add rule ip service output ip daddr %s tcp dport 6443 dnat to numgen inc mod %d map { %s }",
		serviceAddr, len(servers), strings.Join(ends, ", ")))
}
