package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// A wrong IPv6 value that is set while hosts run is refused with its key, the value and
// the rule, and IPv4 goes on. A host that starts with it ends, and names the same.
func TestWrongIPv6Configuration(t *testing.T) {
	c := newCluster(t, "3")
	a, b := c.dualNode("a"), c.dualNode("b")
	c.joinPair(a, b)
	late := c.dualNode("late")
	pings := startPing(t, a, b, "0.02")
	pings.goesOn()
	for keys, want := range map[string]string{
		`"IPv6Network": "ten"`:                                           "IPv6Network ten must be an IPv6 network",
		`"IPv6Network": "10.6.0.0/16"`:                                   "IPv6Network 10.6.0.0/16 must be an IPv6 network",
		`"IPv6Network": "fe80::/48"`:                                     "IPv6Network fe80::/48 overlaps the link-local range",
		`"EnableIPv6": true`:                                             "IPv6Network is missing",
		`"EnableIPv6": "yes"`:                                            `EnableIPv6 "yes" must be true or false`,
		`"IPv6Network": "fd00:5::/48", "IPv6SubnetLen": 128`:             "IPv6SubnetLen 128 must be at most 126",
		`"IPv6Network": "fd00:5::/48", "IPv6SubnetLen": 32`:              "IPv6SubnetLen 32 makes a subnet larger than IPv6Network fd00:5::/48",
		`"IPv6Network": "fd00:5::/48", "IPv6SubnetMin": "fd00:6::"`:      "IPv6SubnetMin fd00:6:: is outside IPv6Network fd00:5::/48",
		`"IPv6Network": "fd00:5::/48", "IPv6SubnetMax": "fd00:5:0:1::1"`: "IPv6SubnetMax fd00:5:0:1::1 is not the first address",
	} {
		t.Run(keys, func(t *testing.T) {
			c.configure(fmt.Sprintf(`{"Network": %q, "SubnetMax": "10.5.99.0", %s}`, network, keys))
			for _, n := range []*node{a, b} {
				eventually(t, "the status names it", func() error {
					if text := unescape.Replace(n.statusText()); !strings.Contains(text, want) {
						return fmt.Errorf("no %q in\n%s", want, text)
					}
					return nil
				})
			}
			refuses(t, launch(t, late.Host, late.args...), want)
		})
	}
	pings.end()
}

// unescape undoes JSON's quotation marks.
var unescape = strings.NewReplacer(`\"`, `"`)

// A lease with half of what IPv6 needs gives its host's IPv4 subnet a way, and names what
// is missing. Other hosts' packets flow by both families.
func TestPeerWithHalfARecord(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(familyConfig("46", `{"Type": "vxlan"}`))
	a, b := c.dualNode("a"), c.dualNode("b")
	c.joinPair(a, b)
	for _, n := range []*node{a, b} {
		n.AddIPv6("docker0", n.container, n.ipv6Subnet())
	}
	const ipv4 = `"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:%02x"}`
	for i, rest := range []string{
		`"PublicIPv6":null`,
		`"PublicIPv6":"nonsense","BackendV6Data":{"VNI":1,"VtepMAC":"0e:00:00:00:01:01"}`,
		`"PublicIPv6":"ff05::1","BackendV6Data":{"VNI":1,"VtepMAC":"0e:00:00:00:01:02"}`,
		`"PublicIPv6":"fd00:77::73"`,
		`"PublicIPv6":"fd00:77::74","BackendV6Data":{"VNI":1,"VtepMAC":"nonsense"}`,
	} {
		number := 120 + i
		c.keys.put(t, fmt.Sprintf("subnets/10.5.%d.0-24&fd00:5:0:%d::-64", number, number),
			fmt.Sprintf(`{"PublicIP":"192.168.77.%d",%s,`+ipv4+`}`, number, rest, number), 0)
		a.awaitPeer(netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/24", number)), netip.MustParseAddr(fmt.Sprintf("192.168.77.%d", number)))
		route := fmt.Sprintf("10.5.%d.0/24", number)
		eventually(t, "a route of IPv4 to "+route, func() error {
			out, err := output(t, a.Host, "ip", "route", "show", route)
			if err == nil && !strings.Contains(out, "dev flannel.1") {
				err = fmt.Errorf("it is %q", out)
			}
			return err
		})
		out, err := output(t, a.Host, "ip", "-6", "route", "show", fmt.Sprintf("fd00:5:0:%d::/64", number))
		if err != nil || out != "" {
			t.Errorf("%s: the route of IPv6 is %q, %v", rest, out, err)
		}
	}
	a.awaitProblems(5)
	c.awaitPair(a, b)
	eventually(t, "IPv6 from a", func() error { return ping(t, a.container, b.container.IPv6Addr().Addr()) })
}
