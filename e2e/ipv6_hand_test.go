package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// handSubnet6 is the IPv6 subnet of a host without the program.
var handSubnet6 = netip.MustParsePrefix("fd00:5:0:200::/64")

// lease6 is what a lease says of IPv6.
type lease6 struct {
	PublicIPv6    netip.Addr
	BackendV6Data struct{ VtepMAC, PublicKey string }
}

// A host that is set up by ip(8), bridge(8) and wg(8), from the protocol's description,
// and one of ours reach each other by IPv6.
func TestIPv6ByHand(t *testing.T) {
	for backend, test := range map[string]struct {
		options string
		// connect returns the lease's type and data, and connects the host to a.
		connect func(t *testing.T, hand, a *node) (data string, finish func(lease6))
	}{
		"vxlan":     {`{"Type": "vxlan"}`, vxlanByHand},
		"host-gw":   {`{"Type": "host-gw"}`, hostGWByHand},
		"wireguard": {`{"Type": "wireguard", "Datapath": "userspace"}`, wireguardByHand},
	} {
		t.Run(backend, func(t *testing.T) {
			c := newCluster(t, "3")
			c.configure(familyConfig("46", test.options))
			a := c.dualNode("a")
			a.join()
			a.addContainer()
			a.AddIPv6("docker0", a.container, a.ipv6Subnet())
			hand := &node{Host: c.lab.DualHost("hand"), t: t, envFile: filepath.Join(t.TempDir(), "subnet.env")}
			env := fmt.Sprintf("FLANNEL_SUBNET=10.5.200.1/24\nFLANNEL_IPV6_SUBNET=%v\nFLANNEL_MTU=1420\n", handSubnet6)
			if err := os.WriteFile(hand.envFile, []byte(env), 0o644); err != nil {
				t.Fatal(err)
			}
			hand.addContainer()
			hand.AddIPv6("docker0", hand.container, handSubnet6)
			data, finish := test.connect(t, hand, a)
			c.keys.put(t, "subnets/10.5.200.0-24&fd00:5:0:200::-64",
				fmt.Sprintf(`{"PublicIP":"%v","PublicIPv6":"%v",%s}`, hand.Addr().Addr(), hand.IPv6Addr().Addr(), data), 0)
			var l lease6
			for _, value := range c.leases() {
				if strings.Contains(value, a.IPv6Addr().Addr().String()) {
					if err := json.Unmarshal([]byte(value), &l); err != nil {
						t.Fatal(err)
					}
				}
			}
			finish(l)
			for _, way := range [][2]*node{{a, hand}, {hand, a}} {
				eventually(t, "IPv6 from "+way[0].Name(), func() error {
					return ping(t, way[0].container, way[1].container.IPv6Addr().Addr())
				})
			}
			if err := transfer(t, a.container, hand.container, hand.container.IPv6Addr().Addr()); err != nil {
				t.Error(err)
			}
		})
	}
}

func vxlanByHand(_ *testing.T, hand, a *node) (string, func(lease6)) {
	const mac = "c6:d2:32:6f:8f:46"
	data := `"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"` + mac + `"}`
	return data, func(l lease6) {
		hand.addVTEP("flannel-v6.1", 1430, vtep{handSubnet6, hand.IPv6Addr().Addr(), mac}, vtep{a.ipv6Subnet(), l.PublicIPv6, l.BackendV6Data.VtepMAC})
	}
}

func hostGWByHand(_ *testing.T, hand, a *node) (string, func(lease6)) {
	return `"BackendType":"host-gw"`, func(l lease6) { hand.AddRoute(a.ipv6Subnet(), l.PublicIPv6, "") }
}

func wireguardByHand(t *testing.T, hand, a *node) (string, func(lease6)) {
	t.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	data := fmt.Sprintf(`"BackendType":"wireguard","BackendData":{"PublicKey":%[1]q,"Port":51820},"BackendV6Data":{"PublicKey":%[1]q,"Port":51821}`, key.PublicKey())
	return data, func(l lease6) {
		device := hand.runWireGuardGo(51821)
		hand.setWireGuard(device, key, 51821, l.BackendV6Data.PublicKey, netip.AddrPortFrom(l.PublicIPv6, 51821), a.ipv6Subnet())
		hand.AddAddr(device, netip.PrefixFrom(handSubnet6.Addr(), 128))
		hand.AddRoute(netip.MustParsePrefix(ipv6Network), netip.Addr{}, device)
	}
}
