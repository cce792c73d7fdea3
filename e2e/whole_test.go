package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// limitRule judges each packet, so it keeps the fast path off.
const limitRule = "table ip user { chain forward { type filter hook forward priority filter; limit rate 1000000/second burst 100000 packets accept; }; }"

// The link between these hosts carries super-packets. The receiving host hands them to
// a container as they are, however the container is attached: not one is cut.
func TestSuperPacketsStayWhole(t *testing.T) {
	for name, attach := range map[string]func(n *node) error{
		"bridge, and a rule judges each packet": func(n *node) error {
			n.run("nft", limitRule)
			return nil
		},
		"macvlan": func(n *node) error {
			n.run("ip", "link", "del", "docker0")
			gateway := n.gateway()
			n.container = n.MacvlanContainer(n.Name()+"-macvlan", netip.PrefixFrom(n.containerAddr(), gateway.Bits()), gateway.Addr(), n.mtu())
			return nil
		},
		"routed veth": func(n *node) error {
			n.run("ip", "link", "del", "docker0")
			n.container = n.RoutedContainer(n.Name()+"-routed", n.containerAddr(), n.gateway().Addr(), n.mtu())
			return nil
		},
		"routed netkit": func(n *node) (err error) {
			n.run("ip", "link", "del", "docker0")
			n.container, err = n.NetkitContainer(n.Name()+"-netkit", n.containerAddr(), n.gateway().Addr(), n.mtu())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			netnstest.Require(t)
			_, a, b, _, _ := kernelPair(t)
			if err := attach(b); errors.Is(err, unix.EOPNOTSUPP) {
				netnstest.Netkit.Missing(t, err)
				return
			} else if err != nil {
				t.Fatal(err)
			}
			eventually(t, "super-packets reach the container whole", func() error {
				copyBulk(t, a.container, b.container)
				wire, container, err := copyCounted(t, a, b)
				if status := b.status().Backend.FastPath; err == nil && (container > wire*11/10 || len(status.Cut) > 0) {
					err = fmt.Errorf("%d packets on the wire, %d at the container; the status says %+v", wire, container, status)
				}
				return err
			})
		})
	}
}

// copyCounted copies from a container of a to one of b. It returns how many packets
// have arrived at the uplink of b and at the container; a super-packet is one. It is an
// error if the link carried no super-packets.
func copyCounted(t *testing.T, a, b *node) (wire, container uint64, err error) {
	t.Helper()
	count := func(h *netnstest.Host, device string) (packets, bytes uint64) {
		l, err := h.Netlink().LinkByName(device)
		if err != nil {
			t.Fatal(err)
		}
		s := l.Attrs().Statistics
		return s.RxPackets, s.RxBytes
	}
	wireBefore, bytesBefore := count(b.Host, netnstest.Uplink)
	containerBefore, _ := count(b.container, "eth0")
	copyBulk(t, a.container, b.container)
	wire, bytes := count(b.Host, netnstest.Uplink)
	container, _ = count(b.container, "eth0")
	wire, bytes, container = wire-wireBefore, bytes-bytesBefore, container-containerBefore
	if bytes < 2*1500*wire {
		err = fmt.Errorf("the link carries no super-packets: %d bytes in %d packets", bytes, wire)
	}
	return wire, container, err
}

// A shaper at the bridge must see each packet. If the kernel's bridges cut
// super-packets, they cut them there, and the status says why.
func TestSuperPacketsAreCut(t *testing.T) {
	netnstest.Require(t)
	_, a, b, _, _ := kernelPair(t)
	b.run("tc", "qdisc", "add", "dev", "docker0", "root", "tbf", "rate", "1gbit", "burst", "1m", "latency", "50ms")
	eventually(t, "the shaper is found", func() error {
		if off := b.status().Backend.FastPath.Off; !slices.Contains(off, "qdisc tbf at docker0") {
			return fmt.Errorf("the status says %q", off)
		}
		return nil
	})
	eventually(t, "the status says why super-packets are cut", func() error {
		wire, container, err := copyCounted(t, a, b)
		if cut := b.status().Backend.FastPath.Cut; err == nil && container > 2*wire && strings.Join(cut, "") != "docker0 cuts super-packets: qdisc tbf" {
			err = fmt.Errorf("it says %q", cut)
		}
		return err
	})
	b.run("tc", "qdisc", "del", "dev", "docker0", "root")
	eventually(t, "super-packets are no longer cut", func() error {
		if cut := b.status().Backend.FastPath.Cut; len(cut) > 0 {
			return fmt.Errorf("it says %q", cut)
		}
		return nil
	})
}
