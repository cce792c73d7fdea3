package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
	"github.com/coreos/flannel/subnet/subnettest/faultproxy"
)

// firstProxyPort is where the proxies listen, in etcd's namespace.
const firstProxyPort = 3000

// faultRig is a cluster of hosts that reach a three-member etcd through proxies
// of their own, under load.
type faultRig struct {
	t       *testing.T
	lab     *netnstest.Lab
	dual    bool // both families inside
	etcd    *etcdserver.Cluster
	keys    keysV3 // past the proxies
	history *history
	hosts   []*faultHost
	flows   []*flow
}

// faultHost is a host, its daemon's present run, and its way to etcd.
type faultHost struct {
	*node
	daemon  *daemon
	proxies []*faultproxy.Proxy // one for each member
	id      string              // its NodeID
	addr    netip.Prefix        // its uplink's, at present
	addr6   netip.Prefix        // that of IPv6; invalid without
	used    resources           // by this run, when it was young
	// unrecorded: the history does not record which subnet the daemon reports.
	unrecorded atomic.Bool
}

const networkConfig = `{"Network": "10.5.0.0/16", "SubnetMax": "10.5.99.0"}`

// dualConfig has a network of both families.
const dualConfig = `{"Network": "10.5.0.0/16", "SubnetMax": "10.5.99.0", "IPv6Network": "` + ipv6Network + `"}`

// config is the network's configuration.
func (r *faultRig) config() string {
	if r.dual {
		return dualConfig
	}
	return networkConfig
}

func newFaultRig(t *testing.T, hosts int, dual bool, args ...string) *faultRig {
	t.Helper()
	netnstest.Require(t)
	r := &faultRig{t: t, lab: netnstest.New(t), dual: dual}
	store := r.lab.Host("etcd")
	r.etcd = etcdserver.StartCluster(t, 3, etcdserver.Options{
		Listen:  net.JoinHostPort(store.Addr().Addr().String(), "2379"),
		Command: []string{"ip", "netns", "exec", store.Netns()},
		Args:    []string{"--log-level=info"}, // the log has a line when it serves
	})
	r.keys = openV3(t, store, r.etcd.URLs()...)
	r.keys.put(t, "config", r.config(), 0)
	r.history = newHistory(r.keys.Client)
	r.history.follow(t)
	var nodes []*node
	for i := range hosts {
		h := &faultHost{}
		var endpoints []string
		for j, url := range r.etcd.URLs() {
			addr := netip.AddrPortFrom(store.Addr().Addr(), uint16(firstProxyPort+10*i+j)).String()
			h.proxies = append(h.proxies, startProxy(t, store, addr, strings.TrimPrefix(url, "http://")))
			endpoints = append(endpoints, "http://"+addr)
		}
		host := r.host(fmt.Sprintf("host%d", i))
		h.node = newNode(t, host, strings.Join(endpoints, ","), args...)
		h.addr, h.addr6 = host.Addr(), host.IPv6Addr()
		h.plantForeign()
		h.start()
		h.id = h.nodeID()
		h.addContainer()
		if dual {
			h.AddIPv6("docker0", h.container, h.ipv6Subnet())
		}
		r.hosts = append(r.hosts, h)
		nodes = append(nodes, h.node)
	}
	r.flows = startLoad(t, nodes, inet.IPv4)
	if dual {
		r.flows = append(r.flows, startLoad(t, nodes, inet.IPv6)...)
	}
	for _, f := range r.flows {
		f.works(t)
	}
	return r
}

// host makes a host with an address of each family inside.
func (r *faultRig) host(name string) *netnstest.Host {
	r.t.Helper()
	if r.dual {
		return r.lab.DualHost(name)
	}
	return r.lab.Host(name)
}

func startProxy(t *testing.T, h *netnstest.Host, listen, to string) *faultproxy.Proxy {
	t.Helper()
	p := faultproxy.New(faultproxy.Config{
		Listen: func(ctx context.Context) (net.Listener, error) { return h.Listen(ctx, "tcp", listen) },
		Dial:   func(ctx context.Context) (net.Conn, error) { return h.Dial(ctx, "tcp", to) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("proxy %s: %v", listen, err)
		}
	})
	t.Cleanup(func() { cancel(); run.Wait() })
	return p
}

// start runs the daemon and records its resources when it is ready.
func (h *faultHost) start() {
	h.t.Helper()
	h.daemon = h.join()
	h.used = h.resources()
}

// each does something to all proxies of some hosts.
func each(hosts []*faultHost, do func(*faultproxy.Proxy)) {
	for _, h := range hosts {
		for _, p := range h.proxies {
			do(p)
		}
	}
}

// storedKey is the name of the host's lease below <prefix>/subnets/.
func (h *faultHost) storedKey() string {
	key := h.leaseKey()
	if p := h.ipv6Subnet(); p.IsValid() {
		key += "&" + strings.ReplaceAll(p.String(), "/", "-")
	}
	return key
}

// tables compares every host's peers with the leases in the store.
func (r *faultRig) tables() error {
	stored := r.keys.list(r.t, "subnets")
	if len(stored) != len(r.hosts) {
		return fmt.Errorf("the store has %d keys for %d hosts: %v", len(stored), len(r.hosts), stored)
	}
	leases := make(map[netip.Prefix]netip.Addr) // the parts of all
	for _, h := range r.hosts {
		key, want := h.storedKey(), fmt.Sprintf(`"PublicIP":"%v"`, h.addr.Addr())
		leases[h.subnet()] = h.addr.Addr()
		if r.dual {
			want += fmt.Sprintf(`,"PublicIPv6":"%v"`, h.addr6.Addr())
			leases[h.ipv6Subnet()] = h.addr6.Addr()
		}
		if !strings.Contains(stored[key], want) {
			return fmt.Errorf("key %s has %q, want %s", key, stored[key], want)
		}
	}
	parts := len(leases) / len(r.hosts)
	for _, h := range r.hosts {
		s, err := h.readStatus()
		if err != nil {
			return err
		}
		if !s.Ready || s.Lease.Subnet != h.subnet() {
			return fmt.Errorf("host %s: ready %v with %v, subnet.env has %v", h.Name(), s.Ready, s.Lease.Subnet, h.subnet())
		}
		if len(s.Backend.Peers) != len(leases)-parts {
			return fmt.Errorf("host %s has %d peers, the store %d", h.Name(), len(s.Backend.Peers), len(leases)-parts)
		}
		for _, p := range s.Backend.Peers {
			if leases[p.Subnet] != p.PublicIP {
				return fmt.Errorf("host %s has peer %v at %v, the store %v", h.Name(), p.Subnet, p.PublicIP, leases[p.Subnet])
			}
		}
	}
	return nil
}
