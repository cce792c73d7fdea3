package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// natPort is translated to echoPort by a rule of natRule.
const natPort = 7777

// containerFaults are those of containers, whose flows of IPv4 take the fast path. They
// are in an order that a seed relies on.
var containerFaults = []fault{
	dropRule("sent"),
	dropRule("received"),
	natRule,
	entriesDeleted,
	undone("rule judges each packet", true, []string{"nft", limitRule}, []string{"nft", "delete table ip user"}),
	undone("shaper at the bridge", false, strings.Fields("tc qdisc add dev docker0 root tbf rate 1gbit burst 1m latency 50ms"), strings.Fields("tc qdisc del dev docker0 root")),
	undone("bridge renamed", true, strings.Fields("ip link set docker0 name renamed0"), strings.Fields("ip link set renamed0 name docker0")),
	bridgeDeleted,
	containerMoved,
	containerReaddressed,
}

// two returns a host and one of its peers.
func (r *faultRig) two(rnd *rand.Rand) (h, peer *faultHost) {
	i := rnd.IntN(len(r.hosts))
	return r.hosts[i], r.hosts[(i+1+rnd.IntN(len(r.hosts)-1))%len(r.hosts)]
}

// dropRule adds a rule that drops a flow of containers in one direction, and deletes
// the flow's entries. From then on not one packet may pass.
func dropRule(direction string) fault {
	return fault{name: "rule drops packets " + direction, family: new(inet.IPv4), between: true, cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h, peer := r.two(rnd)
		match := "iifname docker0 ip daddr"
		if direction == "received" {
			match = "iifname flannel0 ip saddr"
		}
		h.run("nft", fmt.Sprintf("table ip chaos { chain forward { type filter hook forward priority 7; %s %v drop; }; }", match, peer.containerAddr()))
		h.forgetFlows()
		f := r.flow(h, peer)
		sent := f.sent()
		return func() {
			if n := f.answeredUpTo(); n > sent {
				r.t.Errorf("packets of %s to %s pass the rule: number %d, which was sent after number %d", h.Name(), peer.Name(), n, sent)
			}
			h.run("nft", "delete table ip chaos")
		}, []*faultHost{h, peer}
	}}
}

// forgetFlows deletes the conntrack entries of the host's containers.
func (h *faultHost) forgetFlows() {
	h.t.Helper()
	err := h.Do(func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, containerFlows{})
		return err
	})
	if err != nil {
		h.t.Fatalf("delete conntrack entries of %s: %v", h.Name(), err)
	}
}

// port is the port of the host's bridge that its container is at.
func (h *faultHost) port() string {
	name := "veth-" + h.container.Name()
	return name[:min(len(name), unix.IFNAMSIZ-1)]
}

// containerFlows are those within the overlay network.
type containerFlows struct{}

func (containerFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	source, _ := netip.AddrFromSlice(f.Forward.SrcIP.To4())
	return network.Contains(source)
}

// flow is the flow of IPv4 from one host to another.
func (r *faultRig) flow(from, to *faultHost) *flow {
	r.t.Helper()
	for _, f := range r.flows {
		if f.from == from.node && f.to == to.node && f.family == inet.IPv4 {
			return f
		}
	}
	r.t.Fatalf("there is no flow from %s to %s", from.Name(), to.Name())
	return nil
}

// natRule adds a rule that translates new flows to a port, and checks that it does so
// for one with more packets than take the long way first. Other flows go on.
var natRule = fault{name: "rule translates new flows", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
	h, peer := r.two(rnd)
	to := peer.containerAddr()
	h.run("nft", fmt.Sprintf("table ip chaos { chain prerouting { type nat hook prerouting priority dstnat; ip daddr %v udp dport %d dnat to %v:%d; }; }",
		to, natPort, to, echoPort))
	r.must(h.exchange(r.t.Context(), netip.AddrPortFrom(to, natPort), 100))
	return func() { h.run("nft", "delete table ip chaos") }, nil
}}

// exchange sends n datagrams from the host's container, each after the answer to the
// one before. Answers from another address do not count.
func (h *faultHost) exchange(ctx context.Context, to netip.AddrPort, n int) error {
	c, err := h.container.Dial(ctx, "udp4", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 64)
	for i := range n {
		if _, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(i))); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
			return err
		}
		if _, err := c.Read(buf); err != nil {
			return fmt.Errorf("datagram %d from %s to %v has no answer: %w", i, h.Name(), to, err)
		}
	}
	return nil
}

// undone is a fault by a command of a host that another one undoes. It loses no
// packet, or those of the host.
func undone(name string, harmless bool, command, undo []string) fault {
	return fault{name: name, cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.run(command...)
		mend := func() { h.run(undo...) }
		if harmless {
			return mend, nil
		}
		return mend, []*faultHost{h}
	}}
}

var bridgeDeleted = fault{name: "bridge deleted", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
	h := r.one(rnd)
	h.run("ip", "link", "del", "docker0")
	return func() {
		h.Bridge("docker0", h.gateway(), h.mtu())
		h.run("ip", "link", "set", h.port(), "master", "docker0")
	}, []*faultHost{h}
}}

var containerMoved = fault{name: "container moved to another bridge", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
	h := r.one(rnd)
	h.DelAddr("docker0", h.gateway())
	h.Bridge("docker1", h.gateway(), h.mtu())
	h.run("ip", "link", "set", h.port(), "master", "docker1")
	return func() {
		h.run("ip", "link", "set", h.port(), "master", "docker0")
		h.run("ip", "link", "del", "docker1")
		h.AddAddr("docker0", h.gateway())
	}, []*faultHost{h}
}}

var containerReaddressed = fault{name: "container's hardware address changed", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
	h := r.one(rnd)
	mac := fmt.Sprintf("02:00:00:00:%02x:%02x", rnd.IntN(256), rnd.IntN(256))
	if out, err := output(r.t, h.container, "ip", "link", "set", "eth0", "address", mac); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	return nil, []*faultHost{h}
}}

var entriesDeleted = fault{name: "conntrack entries deleted", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
	r.one(rnd).forgetFlows()
	return nil, nil
}}
