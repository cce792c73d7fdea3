package netnstest

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// labs counts the labs of this process; the number is part of their namespaces'
// names.
var labs atomic.Uint32

// The networks of a lab's hosts: host number n has the n-th address. The switch has
// the last, which is the default gateway.
var (
	underlay = netip.MustParsePrefix("192.168.77.0/24")
	router   = netip.MustParseAddr("192.168.77.254")

	underlay6 = netip.MustParsePrefix("fd00:77::/64")
	router6   = netip.MustParseAddr("fd00:77::fe")
)

// Uplink is the name of each host's interface to the switch.
const Uplink = "eth0"

// Switch is the bridge between the hosts' uplinks, in the router's namespace.
const Switch = "lab0"

// Lab is a set of hosts on one switch. Only one goroutine may call its methods.
type Lab struct {
	scope  Scope
	prefix string // of the namespaces' names

	mu    sync.Mutex
	hosts []*Host

	router *Host // the switch's namespace
	ports  int
	dual   bool // the switch has an IPv6 address
}

// New makes a lab. The end of the scope kills every process in its namespaces and
// removes every namespace and device. New first removes the leftovers of runs that
// were killed.
func New(s Scope) *Lab {
	s.Helper()
	if err := removeOrphans(); err != nil {
		s.Fatalf("remove namespaces of earlier runs: %v", err)
	}
	run, err := runPrefix()
	if err != nil {
		s.Fatalf("name lab: %v", err)
	}
	l := &Lab{scope: s, prefix: fmt.Sprintf("%s%d-", run, labs.Add(1))}
	s.Cleanup(func() {
		s.Helper()
		if err := l.close(); err != nil {
			s.Logf("close lab: %v", err)
		}
	})
	l.router = l.Namespace("switch")
	l.router.addr = netip.PrefixFrom(router, underlay.Bits())
	l.router.Bridge(Switch, l.router.addr, 0)
	return l
}

// Router is the namespace of the switch. Its bridge has the address of the default
// gateway. Tests add interfaces to it for the world outside.
func (l *Lab) Router() *Host { return l.router }

// Host makes a host with an uplink to the switch, an address, and a default
// route. The name must be new in the lab.
func (l *Lab) Host(name string) *Host {
	l.scope.Helper()
	h := l.Unwired(name)
	h.AddAddr(Uplink, h.Addr())
	h.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), router, "")
	return h
}

// DualHost makes a host that has an IPv6 address and default route as well.
func (l *Lab) DualHost(name string) *Host {
	l.scope.Helper()
	h := l.Host(name)
	if !l.dual {
		l.dual = true
		l.router.addr6 = netip.PrefixFrom(router6, underlay6.Bits())
		l.router.AddAddr(Switch, l.router.addr6)
		l.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	}
	b := underlay6.Addr().As16()
	b[15] = byte(l.ports)
	h.addr6 = netip.PrefixFrom(netip.AddrFrom16(b), underlay6.Bits())
	h.Sysctl("net.ipv6.conf.default.accept_dad", "0") // a bridge's own address is usable at once
	h.AddAddr(Uplink, h.addr6)
	h.AddRoute(netip.PrefixFrom(netip.IPv6Unspecified(), 0), router6, "")
	return h
}

// Unwired makes a host whose uplink is up and has neither address nor route yet.
// Addr is the address that is reserved for it.
func (l *Lab) Unwired(name string) *Host {
	l.scope.Helper()
	h := l.Namespace(name)
	l.ports++
	addr := underlay.Addr()
	for range l.ports {
		addr = addr.Next()
	}
	if addr == router {
		l.scope.Fatalf("make host %s: no address left in %v", name, underlay)
	}
	h.addr = netip.PrefixFrom(addr, underlay.Bits())
	port := fmt.Sprintf("port%d", l.ports)
	l.Wire(l.router, port, h, Uplink, 0)
	l.router.enslave(port, Switch)
	return h
}

// Namespace makes a namespace with only a loopback, which is up.
func (l *Lab) Namespace(name string) *Host {
	l.scope.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.hosts, func(h *Host) bool { return h.name == name }) {
		l.scope.Fatalf("make namespace %s: the lab has one of that name", name)
	}
	full := l.prefix + name
	ns, err := create(full)
	if err != nil {
		l.scope.Fatalf("%v", err)
	}
	h := &Host{lab: l, name: name, full: full, ns: ns}
	l.hosts = append(l.hosts, h)
	if h.nl, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
		l.scope.Fatalf("open netlink in namespace %s: %v", name, err)
	}
	h.Up("lo")
	return h
}

// Wire connects two namespaces by a veth pair with both ends up. An mtu of 0 is
// the kernel's default of 1500.
func (l *Lab) Wire(a *Host, ifA string, b *Host, ifB string, mtu int) {
	l.scope.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = ifA
	attrs.MTU = mtu
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: ifB, PeerNamespace: netlink.NsFd(b.ns), PeerMTU: uint32(mtu)}
	if err := a.nl.LinkAdd(pair); err != nil {
		l.scope.Fatalf("wire %s %s to %s %s: %v", a.name, ifA, b.name, ifB, err)
	}
	a.Up(ifA)
	b.Up(ifB)
}

func (l *Lab) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, h := range slices.Backward(l.hosts) {
		killed, err := killAll(filepath.Join(netnsDir, h.full))
		for _, p := range killed {
			l.scope.Logf("host %s: killed leftover process %s", h.name, p)
		}
		if h.nl != nil {
			h.nl.Close()
		}
		errs = append(errs, err, unpin(h), h.ns.Close(), remove(h.full))
	}
	l.hosts = nil
	return errors.Join(errs...)
}
