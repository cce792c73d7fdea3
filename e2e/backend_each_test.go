package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// backendCase has the differences between backends in the tests that all share.
type backendCase struct {
	name, config string
	mtu          int
	// device is the backend's device; "": there is none.
	device string
	// staysUp: the kernel carries packets without the daemon.
	staysUp bool
	// lease returns the value of a host at addr; own is the host's part of the
	// backend's data.
	lease func(addr, own string) string
	// own finds that part in a lease. madeUp makes it for a made-up peer. nil:
	// leases have no such part.
	own    func(leaseValue) string
	madeUp func(n int) string
	// read returns the handling of packets to each peer, wants the expected
	// one.
	read  kernelPeers
	wants func(subnet netip.Prefix, v leaseValue) string
	// harms are done to a host, and must be undone by its daemon.
	harms []string
	// check has further checks of a new trio; away those of a host without its
	// daemon.
	check func(*testing.T, *trio)
	away  func(*testing.T, *node)
}

var udpCase = backendCase{
	name: "udp", config: `{"Type": "udp"}`, mtu: 1472,
	lease: func(addr, _ string) string { return `{"PublicIP":"` + addr + `","PublicIPv6":null}` },
	read:  statusPeers, wants: wantsAt,
	harms:  []string{"ip link del flannel0"},
	device: "flannel0",
}

// Every backend passes these, on three hosts.
func TestEachBackend(t *testing.T) {
	cases := []backendCase{udpCase, hostGWCase, vxlanCase}
	for _, datapath := range wireguards(t) {
		cases = append(cases, wireguardCase(datapath))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(t) })
	}
}

func (c backendCase) run(t *testing.T) {
	tr := newTrio(t, c.config)
	leases := tr.leases()
	for _, n := range tr.nodes {
		value := leases[n.leaseKey()]
		_, v := parseLease(t, n.leaseKey(), value)
		if got, want := shared(value), c.lease(n.Addr().Addr().String(), c.ownOf(v)); got != want {
			t.Errorf("lease of %s is\n%s, want\n%s", n.Name(), got, want)
		}
		if n.mtu() != c.mtu {
			t.Errorf("FLANNEL_MTU is %d, want %d", n.mtu(), c.mtu)
		}
	}
	if c.check != nil {
		c.check(t, tr)
	}
	tr.transferAll()

	for name, end := range map[string]func(*daemon){"restart": (*daemon).stop, "kill": (*daemon).kill} {
		again := func() {
			for i, n := range tr.nodes[:2] {
				end(tr.daemons[i])
				if c.away != nil {
					c.away(t, n)
				}
				tr.daemons[i] = n.join()
			}
		}
		if c.staysUp {
			tr.undisturbed(name, again)
		} else {
			again()
		}
		tr.meetAll()
	}
	tr.restartWhileALeaseEnds(fakePeer{netip.MustParsePrefix("10.5.110.0/24"), c.peer(10)}, c.read, c.staysUp)
	tr.flap(tr.nodes[0])
	tr.meetAll()
	c.agree(tr)
	for _, harm := range c.harms {
		c.isUndone(tr, harm)
	}
	tr.churn(c.peer)
	c.agree(tr)
	tr.meetAll()
	for _, n := range tr.nodes { // the hosts' own parts are unchanged
		if got, want := shared(tr.leases()[n.leaseKey()]), shared(leases[n.leaseKey()]); got != want {
			t.Errorf("the lease was\n%s, is\n%s", want, got)
		}
	}
}

func (c backendCase) ownOf(v leaseValue) string {
	if c.own == nil {
		return ""
	}
	return c.own(v)
}

// peer is the lease of a made-up peer.
func (c backendCase) peer(n int) string {
	own := ""
	if c.madeUp != nil {
		own = c.madeUp(n)
	}
	return c.lease(fmt.Sprintf("192.168.77.%d", 100+n), own)
}

// agree waits until each host matches the store.
func (c backendCase) agree(tr *trio) {
	tr.t.Helper()
	for _, n := range tr.nodes {
		tr.agree(n, c.read, func(key, value string) (string, string) {
			subnet, v := parseLease(tr.t, key, value)
			return subnet.String(), c.wants(subnet, v)
		})
	}
}

// isUndone does harm to the first host.
func (c backendCase) isUndone(tr *trio, harm string) {
	tr.t.Helper()
	n := tr.nodes[0]
	before, err := c.state(n)
	if err != nil {
		tr.t.Fatal(err)
	}
	n.run(strings.Fields(harm)...)
	began := time.Now()
	eventually(tr.t, harm+" is undone", func() error {
		now, err := c.state(n)
		if err == nil && now != before {
			err = fmt.Errorf("it was\n%s\nand is\n%s", before, now)
		}
		return err
	})
	tr.t.Logf("%s: undone after %v", harm, time.Since(began).Round(time.Millisecond))
	tr.meetAll()
	c.agree(tr)
}

// state is the backend's routes and device.
func (c backendCase) state(n *node) (string, error) {
	state := routeLines(n.t, n)
	if c.device == "" {
		return state, nil
	}
	link, err := n.Netlink().LinkByName(c.device)
	if err != nil {
		return "", err
	}
	addrs, err := n.Netlink().AddrList(link, unix.AF_INET)
	if err != nil {
		return "", err
	}
	a := link.Attrs()
	return fmt.Sprintf("%s\n%s %v up %v mtu %d %v", state, c.device, a.HardwareAddr, a.Flags&net.FlagUp != 0, a.MTU, addrs), nil
}

// statusPeers reads the peers from the status report, for backends with their
// peers in the process or in a map of the kernel.
func statusPeers(n *node) (map[string]string, error) {
	s, err := n.readStatus()
	if err != nil {
		return nil, err
	}
	peers := make(map[string]string)
	for _, p := range s.Backend.Peers {
		peers[p.Subnet.String()] = strings.TrimSpace("at " + p.PublicIP.String() + " " + p.Problem)
	}
	return peers, nil
}

func wantsAt(_ netip.Prefix, v leaseValue) string { return "at " + v.PublicIP.String() }
