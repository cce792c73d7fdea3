package e2e

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// After a change of backend and a restart, what there is is what a host has
// that never had another one.
func TestChangeOfBackend(t *testing.T) {
	kinds := []string{
		`{"Type": "host-gw"}`, `{"Type": "vxlan"}`, `{"Type": "udp"}`,
		`{"Type": "wireguard"}`, `{"Type": "vxlan", "DirectRouting": true}`,
		`{"Type": "alloc"}`, `{"Type": "wireguard"}`, `{"Type": "alloc"}`, `{"Type": "host-gw"}`, `{"Type": "alloc"}`,
	}
	c := newCluster(t, "3")
	a, b := c.node("a"), c.node("b")
	foreign := netip.MustParsePrefix("10.5.255.0/24")
	a.AddRoute(foreign, netip.Addr{}, netnstest.Uplink)
	var before string
	for _, kind := range kinds {
		c.use(kind)
		da, db := a.join(), b.join()
		if a.container == nil {
			a.addContainer()
			b.addContainer()
		}
		if !strings.Contains(kind, "alloc") {
			c.meet(a, b)
		}
		da.stop()
		db.stop()
		if strings.Contains(kind, "alloc") {
			state := kernelState(t, a.Host)
			if strings.Contains(state, "proto 85") || strings.Contains(state, "flannel") {
				t.Errorf("left behind:\n%s", state)
			}
			if before != "" && state != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, state)
			}
			before = state
		}
		if !strings.Contains(kernelState(t, a.Host), foreign.String()) {
			t.Fatalf("the foreign route is gone after %s", kind)
		}
	}
}

// The Network may change as well.
func TestChangeOfNetwork(t *testing.T) {
	for _, kind := range []string{"host-gw", "vxlan"} {
		t.Run(kind, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(`{"Type": "` + kind + `"}`)
			a, b := c.node("a"), c.node("b")
			da, db := c.joinPair(a, b)
			da.stop()
			db.stop()
			c.configure(`{"Network": "10.6.0.0/16", "Backend": {"Type": "` + kind + `"}}`)
			a.join()
			b.join()
			b.knows(a.subnet(), a.Addr().Addr())
			routes, err := ownRoutes(b)
			if err != nil || len(routes) != 1 || routes[a.subnet().String()] == "" {
				t.Errorf("routes of b: %v, %v", routes, err)
			}
		})
	}
}

func TestUnknownBackend(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "aws-vpc"}`)
	d := c.node("a").launch()
	if code := d.wait().ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{"aws-vpc", "alloc", "host-gw", "udp", "vxlan", "wireguard"} {
		d.says(want)
	}
}
