package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dockerPair is two hosts with a Docker daemon and a container that answers on
// each.
type dockerPair struct {
	*cluster
	daemons [2]*daemon
	hosts   [2]*dockerHost
	served  [2]netip.Addr // of the container
	guest   string
}

// newDockerPair starts flannel with -ip-masq and args, then Docker by the
// systemd drop-in, but for the drop-in's rules for the firewall. The containers
// that answer have the given options of "docker run".
func newDockerPair(t *testing.T, options []string, args ...string) *dockerPair {
	t.Helper()
	p := &dockerPair{cluster: newCluster(t, "3")}
	p.guest = buildGuest(t)
	image := guestImage(t, p.guest)
	var nodes [2]*node
	for i, name := range []string{"a", "b"} {
		nodes[i] = p.node(name, append([]string{"-ip-masq"}, args...)...)
		p.daemons[i] = nodes[i].join()
	}
	for i, n := range nodes {
		p.hosts[i] = n.startDocker()
		p.hosts[i].docker("import", `--change=ENTRYPOINT ["/guest"]`, image, "guest")
		p.served[i] = p.hosts[i].serve("server", options...)
		n.awaitPeer(nodes[1-i].subnet(), nodes[1-i].Addr().Addr())
	}
	return p
}

// Containers of Docker on two hosts talk to each other under their own
// addresses, and to the world outside under their host's.
func TestDocker(t *testing.T) { overEachDataPath(t, testDocker) }

func testDocker(t *testing.T, dataPath string) {
	p := newDockerPair(t, []string{"--publish=8080:" + guestPort}, dataPath)
	serveOn(t, p.lab.Router(), p.guest)
	outside := p.lab.Router().Addr().Addr().String()
	for i, from := range p.hosts {
		to, served := p.hosts[1-i], p.served[1-i]
		from.acceptOverlay()
		to.acceptOverlay()
		if !to.subnet().Contains(served) {
			t.Fatalf("the container on host %s has the address %v, not of %v", to.Name(), served, to.subnet())
		}
		peer := net.JoinHostPort(served.String(), guestPort)
		mtu := from.mtu()
		largest := fmt.Sprint(mtu - ipv4Header - udpHeader)
		for _, args := range [][]string{
			{"udp", peer, "1"},
			{"udp", peer, largest},
			{"udp", peer, fmt.Sprint(mtu), "fragment"},
			{"udp", peer, "60000", "fragment"},
		} {
			if _, err := from.talk(args...); err != nil {
				t.Error(err)
			}
		}
		if out, err := from.talk("udp", peer, fmt.Sprint(mtu-ipv4Header-udpHeader+1)); err == nil || !strings.Contains(out, "message too long") {
			t.Errorf("a packet larger than the MTU: %q, %v; the container's own interface should refuse it", out, err)
		}

		seen, err := from.talk("tcp", peer, fmt.Sprint(16<<20))
		if err != nil {
			t.Error(err)
		} else if addr, err := netip.ParseAddr(seen); err != nil || !from.subnet().Contains(addr) {
			t.Errorf("the container on host %s sees one of host %s under the address %s", to.Name(), from.Name(), seen)
		}
		for what, addr := range map[string]string{
			"outside": net.JoinHostPort(outside, guestPort),
			// Published by Docker, at the other host's own address.
			"port of the other host": net.JoinHostPort(to.Addr().Addr().String(), "8080"),
		} {
			seen, err := from.talk("tcp", addr, fmt.Sprint(4<<20))
			if err != nil {
				t.Error(err)
			} else if seen != from.Addr().Addr().String() {
				t.Errorf("%s sees the container of host %s under the address %s, not the host's", what, from.Name(), seen)
			}
		}
	}
}

// With Docker's options for IPv6, containers on two hosts talk by both families. The
// world outside sees them under their host's address.
func TestDockerOfBothFamilies(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(familyConfig("46", `{"Type": "udp"}`))
	guest := buildGuest(t)
	image := guestImage(t, guest)
	serveOn(t, c.lab.Router(), guest)
	var hosts [2]*dockerHost
	var served [2]string
	for i, name := range []string{"a", "b"} {
		n := c.dualNode(name, "-ip-masq")
		n.join()
		hosts[i] = n.startDocker(n.dockerOptsForIPv6()...)
		hosts[i].docker("import", `--change=ENTRYPOINT ["/guest"]`, image, "guest")
		hosts[i].acceptOverlay()
		hosts[i].serve("server")
		served[i] = hosts[i].docker("inspect", "--format={{.NetworkSettings.GlobalIPv6Address}}", "server")
		if addr, err := netip.ParseAddr(served[i]); err != nil || !n.ipv6Subnet().Contains(addr) {
			t.Fatalf("the container on host %s has the address %q, not of %v", name, served[i], n.ipv6Subnet())
		}
	}
	hosts[0].awaitPeer(hosts[1].ipv6Subnet(), hosts[1].IPv6Addr().Addr())
	for i, from := range hosts {
		peer := net.JoinHostPort(served[1-i], guestPort)
		for _, args := range [][]string{
			{"udp", peer, fmt.Sprint(from.mtu() - ipv6Header - udpHeader)},
			{"udp", peer, "60000", "fragment"},
		} {
			if _, err := from.talk(args...); err != nil {
				t.Error(err)
			}
		}
		if seen, err := from.talk("tcp", peer, fmt.Sprint(4<<20)); err != nil {
			t.Error(err)
		} else if addr, err := netip.ParseAddr(seen); err != nil || !from.ipv6Subnet().Contains(addr) {
			t.Errorf("a container of host %s is seen under the address %s", from.Name(), seen)
		}
		outside := net.JoinHostPort(c.lab.Router().IPv6Addr().Addr().String(), guestPort)
		if seen, err := from.talk("tcp", outside, fmt.Sprint(1<<20)); err != nil || seen != from.IPv6Addr().Addr().String() {
			t.Errorf("outside sees a container of host %s under the address %q, %v", from.Name(), seen, err)
		}
	}
}

// dockerOptsForIPv6 are the options of "flannel docker-opts" that the drop-in has not.
func (n *node) dockerOptsForIPv6() (options []string) {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "opts")
	if out, err := output(n.t, n.Host, programs.flannel, "docker-opts", "-i", "-f="+n.envFile, "-d="+file); err != nil {
		n.t.Fatalf("flannel docker-opts: %v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, option, _ := strings.Cut(strings.TrimSpace(line), "="); strings.Contains(name, "V6") {
			options = append(options, strings.Trim(option, `"`))
		}
	}
	return options
}

// Docker drops connections from other hosts to its containers by the policy of
// its chain FORWARD. Our table cannot overrule that. flannel logs it, and the
// rules of the drop-in in DOCKER-USER fix it.
func TestDockerForwardPolicy(t *testing.T) {
	p := newDockerPair(t, nil)
	a, b := p.hosts[0], p.hosts[1]
	if rules, err := output(t, b.Host, "iptables", "-S", "FORWARD"); err != nil || !strings.Contains(rules, "-P FORWARD DROP") {
		t.Fatalf("Docker has no policy to drop: %v\n%s", err, rules)
	}
	peer := net.JoinHostPort(p.served[1].String(), guestPort)
	if _, err := a.talk("tcp", peer, "1"); err == nil {
		t.Fatal("Docker lets a connection from another host in; there is nothing to mend")
	}
	// The first packet of that connection went to the container's subnet.
	out, err := output(t, b.Host, "nft", "list", "chain", "ip", "flannel-10.5.0.0-16", "forward")
	if err != nil || !strings.Contains(out, "packets") || strings.Contains(out, "saddr 10.5.0.0/16 counter packets 0 ") {
		t.Errorf("flannel's own chain does not count what Docker drops: %v\n%s", err, out)
	}

	// The log of a flannel that starts after Docker has the warning.
	p.daemons[1].stop()
	b.join().says(`forwarding blocked table="filter" chain="FORWARD"`)

	for range 2 { // a second start of Docker adds nothing
		b.acceptOverlay()
	}
	if _, err := a.talk("tcp", peer, fmt.Sprint(1<<20)); err != nil {
		t.Error(err)
	}
	rules, err := output(t, b.Host, "iptables", "-S", "DOCKER-USER")
	if want := 2; err != nil || strings.Count(rules, "ACCEPT") != want {
		t.Errorf("DOCKER-USER has not %d rules of ours: %v\n%s", want, err, rules)
	}
}
