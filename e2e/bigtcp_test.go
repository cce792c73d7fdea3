package e2e

import (
	"errors"
	"fmt"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// bigSize is the size of a container's super-packets with BIG TCP, in bytes.
const bigSize = 150000

// Containers with BIG TCP reach others by each carrier, although no tunnel takes their
// super-packets whole. Doctor names the size.
func TestBigTCP(t *testing.T) {
	for _, w := range carriers(t) {
		t.Run(w.name, func(t *testing.T) { testBigTCP(t, w) })
	}
}

func testBigTCP(t *testing.T, w carrier) {
	c := newCluster(t, "3")
	c.configure(familyConfig("46", w.backend))
	a, b := c.dualNode("a", w.args...), c.dualNode("b", w.args...)
	c.joinPair(a, b)
	var families []inet.Family
	for _, n := range []*node{a, b} {
		n.AddIPv6("docker0", n.container, n.ipv6Subnet())
		families = raiseGSO(t, n.container, "eth0")
		for _, device := range []string{"veth-" + n.Name() + "-docker0", "docker0", netnstest.Uplink} {
			raiseGSO(t, n.Host, device)
		}
	}
	if out, err := output(t, a.container, "nft", bigCounter); err != nil {
		t.Fatal(out)
	}
	for _, f := range families {
		before := counter(t, a.container, "inet big out")
		eventually(t, "super-packets of "+f.String()+" above 64 KiB", func() error {
			if err := transfer(t, a.container, b.container, b.containerAddrOf(f)); err != nil {
				t.Fatal(err)
			}
			if now := counter(t, a.container, "inet big out"); now == before {
				return fmt.Errorf("a has sent none: %s", now)
			}
			return nil
		})
	}
	if w.device != "" && len(families) > 0 {
		a.finds(c, "BIG TCP", "warn", fmt.Sprintf("(%d bytes)", bigSize))
	}
}

// raiseGSO raises the size of super-packets at a device, in each direction. It returns
// the families for which the kernel does.
func raiseGSO(t *testing.T, h *netnstest.Host, device string) (families []inet.Family) {
	t.Helper()
	nl := h.Netlink()
	link, err := nl.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(nl.LinkSetGSOMaxSize(link, bigSize), nl.LinkSetGROMaxSize(link, bigSize)); err != nil {
		netnstest.BigTCP.Missing(t, err)
		return nil
	}
	families = append(families, inet.IPv6)
	// A kernel that does not know the attributes ignores them.
	err = errors.Join(nl.LinkSetGSOIPv4MaxSize(link, bigSize), nl.LinkSetGROIPv4MaxSize(link, bigSize))
	if link, readErr := nl.LinkByName(device); err != nil || readErr != nil || link.Attrs().GSOIPv4MaxSize != bigSize {
		netnstest.BigTCPOfIPv4.Missing(t, errors.Join(err, readErr))
		return families
	}
	return append(families, inet.IPv4)
}

// bigCounter is a ruleset that counts what a host sends as super-packets above 64 KiB.
const bigCounter = "table inet big { chain out { type filter hook output priority 0; meta length > 66000 counter; }; }"
