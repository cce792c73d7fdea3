package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// dualChaosTime is for how long TestChaosOfFamilies begins new rounds, unless flags say
// otherwise.
const dualChaosTime = 20 * time.Second

// familyFaults are those of one family, in a network of both. No packet of the other
// family may be lost. They are in an order that a seed relies on.
var familyFaults = []fault{
	{name: "IPv6 address gone for a while", family: new(inet.IPv6), cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.DelAddr(netnstest.Uplink, h.addr6)
		return func() { r.addIPv6(h) }, []*faultHost{h}
	}},
	{name: "IPv6 address changed", family: new(inet.IPv6), cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.DelAddr(netnstest.Uplink, h.addr6)
		h.addr6 = r.freeAddr(rnd, inet.IPv6)
		r.addIPv6(h)
		return nil, []*faultHost{h}
	}},
	{name: "IPv6 address in use by another host", family: new(inet.IPv6), cause: duplicateAddress},
	{name: "router advertisement with another prefix", family: new(inet.IPv6), cause: func(r *faultRig, _ *rand.Rand) (func(), []*faultHost) {
		for _, h := range r.hosts {
			h.Sysctl("net/ipv6/conf/eth0/accept_ra", "2") // though it forwards
		}
		r.advertise(time.Hour)
		return func() {
			r.advertise(0)
			for _, h := range r.hosts {
				h.Sysctl("net/ipv6/conf/eth0/accept_ra", "1")
				h.run("ip", "-6", "addr", "flush", "dev", netnstest.Uplink, "dynamic")
			}
		}, nil
	}},
	repaired("IPv6 route deleted", "ip", "-6", "route", "del", ipv6Network, "dev", "flannel0").of(inet.IPv6),
	blockedBetween(inet.IPv4, "ip"),
	blockedBetween(inet.IPv6, "ip6"),
}

// The test does as TestChaos, in a network of both families, and also raises faults of
// one family.
func TestChaosOfFamilies(t *testing.T) {
	testChaos(t, slices.Concat(familyFaults, faults), true, dualChaosTime)
}

// addIPv6 gives a host its IPv6 address, which is usable at once, and a default route.
func (r *faultRig) addIPv6(h *faultHost) {
	r.t.Helper()
	h.AddAddr(netnstest.Uplink, h.addr6)
	h.run("ip", "-6", "route", "replace", "default", "via", r.lab.Router().IPv6Addr().Addr().String())
}

// duplicateAddress gives a host's address to the router as well, and has the host
// detect that.
func duplicateAddress(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
	h, router := r.one(rnd), r.lab.Router()
	addr := h.addr6.String()
	h.DelAddr(netnstest.Uplink, h.addr6)
	router.AddAddr(netnstest.Switch, h.addr6)
	h.Sysctl("net/ipv6/conf/eth0/accept_dad", "1")
	h.run("ip", "-6", "addr", "add", addr, "dev", netnstest.Uplink)
	eventually(r.t, "the host finds its address in use", func() error {
		out, err := output(r.t, h.Host, "ip", "-6", "addr", "show", "dev", netnstest.Uplink, "dadfailed")
		if err == nil && !strings.Contains(out, addr) {
			err = fmt.Errorf("failed are %q", out)
		}
		return err
	})
	return func() {
		router.DelAddr(netnstest.Switch, h.addr6)
		h.DelAddr(netnstest.Uplink, h.addr6)
		r.addIPv6(h)
		for _, other := range r.hosts { // they may know the router's link address
			other.run("ip", "-6", "neigh", "flush", "dev", netnstest.Uplink)
		}
	}, []*faultHost{h}
}

// blockedBetween has the switch drop the packets of a family between two hosts; keyword
// is nft's for it.
func blockedBetween(f inet.Family, keyword string) fault {
	return fault{name: fmt.Sprintf("%v blocked between two hosts", f), family: new(f), between: true, cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		i := rnd.IntN(len(r.hosts))
		a, b := r.hosts[i], r.hosts[(i+1)%len(r.hosts)]
		set := fmt.Sprintf("{ %v, %v }", a.addrOf(f).Addr(), b.addrOf(f).Addr())
		r.onSwitch("add table bridge chaos")
		r.onSwitch("add chain bridge chaos forward { type filter hook forward priority 0; }")
		r.onSwitch(fmt.Sprintf("add rule bridge chaos forward %[1]s saddr %[2]s %[1]s daddr %[2]s drop", keyword, set))
		return func() { r.onSwitch("delete table bridge chaos") }, []*faultHost{a, b}
	}}
}

// addrOf is the uplink's address of a family.
func (h *faultHost) addrOf(f inet.Family) netip.Prefix {
	if f == inet.IPv6 {
		return h.addr6
	}
	return h.addr
}

// onSwitch runs a command of nft in the switch's namespace.
func (r *faultRig) onSwitch(command string) {
	r.t.Helper()
	if out, err := output(r.t, r.lab.Router(), "nft", command); err != nil {
		r.t.Fatalf("nft %s: %v\n%s", command, err, out)
	}
}
