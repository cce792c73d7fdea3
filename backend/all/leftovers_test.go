package all

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/backend/fastpath"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/pinned"
)

// Leftovers lists, and RemoveLeftovers removes, what belongs to the network, and
// nothing that belongs to another.
func TestLeftovers(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	network, other := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.6.0.0/16")
	shell(t, h, `
		ip link add flannel.1 type vxlan id 1 dstport 8472 dev eth0
		ip addr add 10.5.1.0/32 dev flannel.1
		ip link add flannel.2 type vxlan id 2 dstport 8473 dev eth0
		ip addr add 10.6.1.0/32 dev flannel.2
		ip route add 10.5.3.0/24 via 192.168.77.102 dev eth0 proto 85
		ip route add 10.5.4.0/24 via 192.168.77.102 dev eth0
		ip route add 10.6.3.0/24 via 192.168.77.102 dev eth0 proto 85
		nft add table ip flannel-10.5.0.0-16
		nft add table ip flannel-10.6.0.0-16
	`)
	list := func(n netip.Prefix) (names []string) {
		t.Helper()
		if err := h.Do(func() error {
			left, err := Leftovers(n)
			for _, l := range left {
				names = append(names, l.String())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		return names
	}
	expect := func(n netip.Prefix, want ...string) {
		t.Helper()
		if got := list(n); !slices.Equal(got, want) {
			t.Errorf("leftovers of %v are %q, want %q", n, got, want)
		}
	}
	if err := h.Do(func() (err error) {
		for _, n := range []netip.Prefix{network, other} {
			c, directErr := fastpath.Direct(n)
			err = errors.Join(err, directErr, pinned.Prepare(c.PinDir, func(string) error { return nil }))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	others := []string{"device flannel.2", "eBPF programs of 10.6.0.0/16", "nftables table flannel-10.6.0.0-16", "route 10.6.3.0/24"}
	expect(other, others...)
	expect(network, "device flannel.1", "eBPF programs of 10.5.0.0/16", "nftables table flannel-10.5.0.0-16", "route 10.5.3.0/24")

	// A running daemon's device stays.
	if err := h.Do(func() error {
		lock, err := netdev.Lock("flannel.1")
		if err != nil {
			return err
		}
		left, err := Leftovers(network)
		if err != nil {
			return err
		}
		if err := CheckUnlocked(left); err == nil || !strings.Contains(err.Error(), "flannel.1") {
			t.Errorf("a locked device: %v", err)
		}
		if err := RemoveLeftovers(t.Context(), network); err != nil {
			return err
		}
		if err := lock.Close(); err != nil {
			return err
		}
		return CheckUnlocked(left)
	}); err != nil {
		t.Fatal(err)
	}
	expect(network, "device flannel.1")
	if err := h.Do(func() error { return RemoveLeftovers(t.Context(), network) }); err != nil {
		t.Fatal(err)
	}
	expect(network)
	expect(other, others...)
}

// shell runs lines of commands on the host.
func shell(t *testing.T, h *netnstest.Host, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if out, err := h.Command(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.TrimSpace(line), err, out)
		}
	}
}
