package e2e

import (
	"net/netip"
	"strings"
	"testing"
)

// Where the kernel goes on with packets after SIGTERM, so does masquerading: a
// container's packets never leave with an address of the overlay. Cleanup and a
// start without -ip-masq remove the rules.
func TestMasqueradingStaysWithTheDevice(t *testing.T) {
	for name, how := range map[string]struct{ backend, path string }{
		"kernel": {`{"Type": "udp"}`, dataPathFlag + "kernel"}, "vxlan": {`{"Type": "vxlan"}`, ""}, "host-gw": {`{"Type": "host-gw"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "3")
			c.configure(`{"Network": "10.5.0.0/16", "SubnetMax": "10.5.99.0", "Backend": ` + how.backend + `}`)
			args := []string{"-ip-masq"}
			if how.path != "" {
				args = append(args, how.path)
			}
			a := c.node("a", args...)
			d := a.join()
			c.keys.put(t, "subnets/10.5.200.0-24", `{"PublicIP":"192.168.77.200","BackendType":"host-gw"}`, 0) // for a route
			if name == "host-gw" {
				a.awaitPeer(netip.MustParsePrefix("10.5.200.0/24"), netip.MustParseAddr("192.168.77.200"))
			}
			tables := func() string {
				t.Helper()
				out, err := output(t, a.Host, "nft", "list", "tables")
				if err != nil {
					t.Fatal(out)
				}
				return out
			}
			// The store's host has no way back to the overlay: it answers a container
			// only by the address of the container's host.
			a.addContainer()
			store := c.etcdHost()
			reach := func(when string) {
				t.Helper()
				if err := ping(t, a.container, store); err != nil {
					t.Errorf("%s: %v", when, err)
				}
			}
			reach("while it runs")
			d.stop()
			reach("after SIGTERM")
			if out := tables(); !strings.Contains(out, "flannel-10.5.0.0-16") {
				t.Errorf("no rules after SIGTERM: %q", out)
			}
			a.join().stop()
			a.commandSays(0, "", "cleanup", "-subnet-file="+a.envFile)
			if out := tables(); strings.Contains(out, "flannel") {
				t.Errorf("rules after cleanup: %q", out)
			}
		})
	}
}
