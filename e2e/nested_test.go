package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// Each data path carries a tunnel between containers, here VXLAN with super-packets.
// Up to Linux 6.16, a TUN device gets such packets with an unfinished checksum of the
// outer UDP header, and from 6.17 on with one of the inner TCP header.
func TestTunnelBetweenContainers(t *testing.T) {
	overEachDataPath(t, func(t *testing.T, flag string) {
		c := newCluster(t, "3")
		a, b := c.node("a", flag), c.node("b", flag)
		c.joinPair(a, b)
		inside := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 31, 9, byte(1 + i)}) }
		ends := []*node{a, b}
		for i, n := range ends {
			command := fmt.Sprintf("ip link add inner0 type vxlan id 9 dstport 4790 local %v remote %v", n.containerAddr(), ends[1-i].containerAddr())
			if out, err := output(t, n.container, "sh", "-ec", command); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
			n.container.SetMTU("inner0", n.mtu()-50)
			n.container.AddAddr("inner0", netip.PrefixFrom(inside(i), 24))
			n.container.Up("inner0")
		}
		copyBulkTo(t, a.container, b.container, inside(1))
		copyBulkTo(t, b.container, a.container, inside(0))
		for _, n := range ends {
			out, err := output(t, n.container, "nstat", "-asz", "TcpInCsumErrors", "UdpInCsumErrors")
			if err != nil {
				t.Fatal(out)
			}
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); strings.HasSuffix(f[0], "CsumErrors") && f[1] != "0" {
					t.Errorf("the container of %s counts %s packets by %s", n.Name(), f[1], f[0])
				}
			}
		}
	})
}
