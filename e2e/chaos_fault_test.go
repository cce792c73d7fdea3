package e2e

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet/subnettest/faultproxy"
)

// fault breaks something. It returns the repair (nil: no repair is needed) and
// the hosts whose packets may be lost until then. Packets of other hosts may
// not.
type fault struct {
	name  string
	cause func(r *faultRig, rnd *rand.Rand) (mend func(), hurt []*faultHost)
	// family: only its packets may be lost; nil: those of both.
	family *inet.Family
	// between: only packets between two of the hosts may be lost.
	between bool
}

// hurts reports whether a fault of some hosts may cost packets of a flow.
func (f fault) hurts(hosts []*faultHost, fl *flow) bool {
	has := func(n *node) bool { return slices.ContainsFunc(hosts, func(h *faultHost) bool { return h.node == n }) }
	from, to := has(fl.from), has(fl.to)
	return (f.family == nil || *f.family == fl.family) && (from && to || !f.between && (from || to))
}

// faults are in an order that a seed relies on: new ones go to the end.
var faults = []fault{
	{name: "daemon killed", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.daemon.kill()
		return h.start, []*faultHost{h}
	}},
	{name: "daemon stopped and started", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.daemon.stop()
		return h.start, []*faultHost{h}
	}},
	{name: "daemon paused", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.daemon.signal(syscall.SIGSTOP)
		return func() { h.daemon.signal(syscall.SIGCONT) }, []*faultHost{h}
	}},
	{name: "etcd member killed", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		r.etcd.Members[rnd.IntN(3)].Stop()
		return r.etcd.Restart, nil
	}},
	{name: "etcd member paused", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		m := r.etcd.Members[rnd.IntN(3)]
		m.Pause()
		return m.Resume, nil
	}},
	{name: "etcd quorum lost", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		first := rnd.IntN(3)
		r.etcd.Members[first].Stop()
		r.etcd.Members[(first+1)%3].Stop()
		return r.etcd.Restart, nil
	}},
	{name: "etcd cluster killed", cause: func(r *faultRig, _ *rand.Rand) (func(), []*faultHost) {
		r.etcd.Stop()
		return r.etcd.Restart, nil
	}},
	{name: "etcd compacted while hosts are cut off", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		hosts := r.some(rnd)
		each(hosts, func(p *faultproxy.Proxy) { p.Set(faultproxy.Fault{HoldUp: true, HoldDown: true}) })
		r.compact()
		return func() { each(hosts, func(p *faultproxy.Proxy) { p.Set(faultproxy.Fault{}); p.Drop() }) }, nil
	}},
	{name: "etcd restored from a snapshot", cause: func(r *faultRig, _ *rand.Rand) (func(), []*faultHost) {
		file := r.etcd.Snapshot(r.t.Context())
		r.compact() // revisions that the snapshot lacks
		r.history.leave()
		r.etcd.Restore(r.t.Context(), file)
		return r.newStore, nil
	}},
	{name: "etcd wiped", cause: func(r *faultRig, _ *rand.Rand) (func(), []*faultHost) {
		r.history.leave()
		r.etcd.Wipe()
		return r.newStore, nil
	}},
	proxyFault("hosts partitioned from etcd", faultproxy.Fault{HoldUp: true, HoldDown: true}),
	proxyFault("nothing gets to etcd", faultproxy.Fault{HoldUp: true}),
	proxyFault("nothing gets back from etcd", faultproxy.Fault{HoldDown: true}),
	proxyFault("etcd slow", faultproxy.Fault{Delay: 300 * time.Millisecond}),
	{name: "connections to etcd refused", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		hosts := r.some(rnd)
		each(hosts, func(p *faultproxy.Proxy) { p.Set(faultproxy.Fault{Refuse: true}); p.Drop() })
		return func() { each(hosts, func(p *faultproxy.Proxy) { p.Set(faultproxy.Fault{}) }) }, nil
	}},
	{name: "connections to etcd reset", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		each(r.some(rnd), (*faultproxy.Proxy).Drop)
		return nil, nil
	}},
	{name: "connections to etcd half open", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		each(r.some(rnd), (*faultproxy.Proxy).HalfOpen)
		return nil, nil
	}},
	{name: "key deleted", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		r.keys.del(r.t, "subnets/"+h.storedKey())
		return nil, r.late(h, time.Now())
	}},
	{name: "all keys deleted", cause: func(r *faultRig, _ *rand.Rand) (func(), []*faultHost) {
		_, err := r.keys.Delete(limited(r.t), prefix+"/subnets/", clientv3.WithPrefix())
		r.must(err)
		return nil, nil
	}},
	{name: "lease expired", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		answer, err := r.keys.Get(limited(r.t), prefix+"/subnets/"+h.storedKey())
		r.must(err)
		if len(answer.Kvs) == 1 && answer.Kvs[0].Lease != 0 {
			_, err = r.keys.Revoke(limited(r.t), clientv3.LeaseID(answer.Kvs[0].Lease))
			r.must(err)
		}
		return nil, r.late(h, time.Now())
	}},
	badKey("key that is no subnet", "nonsense", `{"PublicIP":"192.168.77.99"}`),
	badKey("value that is no JSON", "10.5.210.0-24", `{"PublicIP":`),
	badKey("subnet over all others", "10.5.0.0-17", `{"PublicIP":"192.168.77.99"}`),
	badKey("subnet outside of Network", "10.9.0.0-24", `{"PublicIP":"192.168.77.99"}`),
	{name: "another subnet with a host's address", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		return r.plant("subnets/10.5.211.0-24", `{"PublicIP":"`+r.one(rnd).addr.Addr().String()+`"}`), nil
	}},
	{name: "configuration changed", cause: func(r *faultRig, _ *rand.Rand) (func(), []*faultHost) {
		r.keys.put(r.t, "config", `{"Network": "10.6.0.0/16"}`, 0)
		return func() { r.keys.put(r.t, "config", r.config(), 0) }, nil
	}},
	{name: "uplink down", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.Down(netnstest.Uplink)
		return func() {
			h.Up(netnstest.Uplink)
			r.addDefaultRoute(h) // the kernel has removed it with the link
			if r.dual {
				r.addIPv6(h) // both address and route are gone
			}
		}, []*faultHost{h}
	}},
	repaired("device deleted", "ip", "link", "del", "flannel0"),
	repaired("route deleted", "ip", "route", "del", "10.5.0.0/16", "dev", "flannel0").of(inet.IPv4),
	{name: "uplink's MTU changed", cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.SetMTU(netnstest.Uplink, 1400)
		return func() { h.SetMTU(netnstest.Uplink, 1500) }, []*faultHost{h}
	}},
	// The address of a host that has moved away may be another one's next.
	{name: "uplink's address changed", family: new(inet.IPv4), cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		r.readdress(h, r.freeAddr(rnd, inet.IPv4))
		return nil, []*faultHost{h}
	}},
	{name: "uplink's address gone for a while", family: new(inet.IPv4), cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.DelAddr(netnstest.Uplink, h.addr)
		h.addr = r.freeAddr(rnd, inet.IPv4)
		return func() { h.AddAddr(netnstest.Uplink, h.addr); r.addDefaultRoute(h) }, []*faultHost{h}
	}},
	{name: "uplink's address changed there and back", family: new(inet.IPv4), cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		before := h.addr
		r.readdress(h, r.freeAddr(rnd, inet.IPv4))
		return func() { r.readdress(h, before) }, []*faultHost{h}
	}},
	{name: "etcd restored from a hot copy", cause: func(r *faultRig, _ *rand.Rand) (func(), []*faultHost) {
		copies := r.hotCopy()
		r.compact() // revisions that the copy does not know
		r.history.leave()
		r.etcd.PutBack(copies)
		return r.newStore, nil
	}},
	pausedAcross("host paused across a wipe of etcd", false, wipe),
	pausedAcross("host paused across a wipe of etcd, equal revision", true, wipe),
	pausedAcross("host paused across the restore of a hot copy", false, putBack),
	pausedAcross("host paused across the restore of a hot copy, equal revision", true, putBack),
}

// removalWaits is below settleTime of package subnet: how long peers keep a single lease
// that is gone, less the time that the news takes.
const removalWaits = 500 * time.Millisecond

// late waits until a host has created its key again. It returns the host if its peers
// may have removed the lease meanwhile, as on a machine under load.
func (r *faultRig) late(h *faultHost, gone time.Time) []*faultHost {
	r.t.Helper()
	eventually(r.t, "the host creates its key again", func() error {
		_, err := r.written("subnets/" + h.storedKey())
		return err
	})
	if time.Since(gone) < removalWaits {
		return nil
	}
	return []*faultHost{h}
}

// readdress replaces the address of a host.
func (r *faultRig) readdress(h *faultHost, to netip.Prefix) {
	r.t.Helper()
	h.DelAddr(netnstest.Uplink, h.addr)
	h.AddAddr(netnstest.Uplink, to)
	h.addr = to
	r.addDefaultRoute(h) // the kernel has removed it with the address
}

// addDefaultRoute makes the route by which a host reaches all others.
func (r *faultRig) addDefaultRoute(h *faultHost) {
	r.t.Helper()
	h.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), r.lab.Router().Addr().Addr(), "")
}

// freeAddr is one of few of a family that no host has at present.
func (r *faultRig) freeAddr(rnd *rand.Rand, f inet.Family) netip.Prefix {
	router := r.lab.Router().Addr()
	if f == inet.IPv6 {
		router = r.lab.Router().IPv6Addr()
	}
	var free []netip.Prefix
	for i := range 2 * len(r.hosts) {
		b := router.Addr().AsSlice()
		b[len(b)-1] = byte(100 + i)
		addr, _ := netip.AddrFromSlice(b)
		a := netip.PrefixFrom(addr, router.Bits())
		if !slices.ContainsFunc(r.hosts, func(h *faultHost) bool { return h.addrOf(f) == a }) {
			free = append(free, a)
		}
	}
	return free[rnd.IntN(len(free))]
}

// repaired is a fault that the daemon of a host repairs.
func repaired(name string, command ...string) fault {
	return fault{name: name, cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		h.run(command...)
		return nil, []*faultHost{h}
	}}
}

// of limits a fault to a family.
func (f fault) of(family inet.Family) fault {
	f.family = &family
	return f
}

// proxyFault is a fault of the way of some hosts to etcd.
func proxyFault(name string, f faultproxy.Fault) fault {
	return fault{name: name, cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		hosts := r.some(rnd)
		each(hosts, func(p *faultproxy.Proxy) { p.Set(f) })
		return func() { each(hosts, func(p *faultproxy.Proxy) { p.Set(faultproxy.Fault{}) }) }, nil
	}}
}

// badKey is something below subnets that has no business there.
func badKey(name, key, value string) fault {
	return fault{name: name, cause: func(r *faultRig, _ *rand.Rand) (func(), []*faultHost) { return r.plant("subnets/"+key, value), nil }}
}

func (r *faultRig) plant(key, value string) (remove func()) {
	r.t.Helper()
	r.keys.put(r.t, key, value, 0)
	return func() { r.keys.del(r.t, key) }
}

func (r *faultRig) one(rnd *rand.Rand) *faultHost { return r.hosts[rnd.IntN(len(r.hosts))] }

// some is one host, or all.
func (r *faultRig) some(rnd *rand.Rand) []*faultHost {
	if rnd.IntN(2) == 0 {
		return r.hosts
	}
	return []*faultHost{r.one(rnd)}
}

// compact makes etcd forget all but the present, after a change.
func (r *faultRig) compact() {
	r.t.Helper()
	answer, err := r.keys.Put(limited(r.t), prefix+"/chaos", time.Now().String())
	r.must(err)
	_, err = r.keys.Compact(limited(r.t), answer.Header.Revision)
	r.must(err)
}

// newStore starts etcd with other data than before.
func (r *faultRig) newStore() {
	r.t.Helper()
	r.etcd.Restart()
	r.keys.put(r.t, "config", r.config(), 0)
	r.history.erase()
	r.history.follow(r.t)
}

func (r *faultRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}
