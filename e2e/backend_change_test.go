package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// After a change of backend and a restart, the state does not depend on the
// previous backend. A backend without state leaves none.
func TestChangeOfBackend(t *testing.T) {
	c := newCluster(t, "3")
	a, b := c.node("a"), c.node("b")
	foreign := netip.MustParsePrefix("10.5.255.0/24")
	a.AddRoute(foreign, netip.Addr{}, netnstest.Uplink)
	const direct = `{"Type": "vxlan", "DirectRouting": true}`
	walk := everyChange(`{"Type": "alloc"}`, `{"Type": "host-gw"}`, `{"Type": "vxlan"}`, `{"Type": "udp"}`, `{"Type": "wireguard"}`)
	walk = append(walk, direct, `{"Type": "host-gw"}`, direct, `{"Type": "wireguard"}`, direct, `{"Type": "alloc"}`)
	states := make(map[string]string)
	for i, kind := range walk {
		c.use(kind)
		da, db := a.launch(), b.launch()
		da.ready()
		db.ready()
		if a.container == nil {
			a.addContainer()
			b.addContainer()
		}
		if kind != walk[0] {
			c.awaitPair(a, b)
			a.awaitFastPathIfAny()
		}
		what := fmt.Sprintf("change %d to %s from %s", i, kind, walk[max(0, i-1)])
		before, known := states[kind]
		if !known {
			before = allState(t, a)
			states[kind] = before
		} else {
			eventually(t, what, func() error {
				if now := allState(t, a); now != before {
					return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
				}
				return nil
			})
		}
		if kind == walk[0] && (strings.Contains(before, "proto 85") || strings.Contains(before, "flannel")) {
			t.Fatalf("%s: left behind:\n%s", what, before)
		}
		if pins := pinsOf(t, a); len(pins) > 0 && !strings.Contains(kind, "udp") && !strings.Contains(kind, "host-gw") {
			t.Fatalf("%s: left behind: %v", what, pins)
		}
		if !strings.Contains(before, foreign.String()) {
			t.Fatalf("%s: the foreign route is gone", what)
		}
		for _, d := range []*daemon{da, db} {
			d.signal(syscall.SIGTERM)
		}
		da.wait()
		db.wait()
	}
}

// everyChange is a walk through kinds that goes from each to each other one
// once, and ends where it begins.
func everyChange(kinds ...string) []string {
	var walk []string
	for i, kind := range kinds {
		walk = append(walk, kind)
		for j := i + 2; j < len(kinds); j++ {
			walk = append(walk, kinds[j], kind)
		}
	}
	back := slices.Clone(kinds[:len(kinds)-1])
	slices.Reverse(back)
	return append(walk, back...)
}

func TestEveryChange(t *testing.T) {
	kinds := []string{"a", "b", "c", "d", "e"}
	walk := everyChange(kinds...)
	seen := make(map[string]int)
	for i := range walk[1:] {
		seen[walk[i]+walk[i+1]]++
	}
	for _, from := range kinds {
		for _, to := range kinds {
			if want := min(1, len(strings.Trim(from, to))); seen[from+to] != want {
				t.Errorf("%d changes from %s to %s, want %d", seen[from+to], from, to, want)
			}
		}
	}
}

// segmenterMAC matches the random addresses of the kernel data path's veth pair.
var segmenterMAC = regexp.MustCompile(`(flannel\d+-(?:seg|enc)@\S+ +\S+ +)[0-9a-f:]+`)

// allState is the kernel's state as kernelState has it, with neighbours and
// forwarding entries, and the files beside subnet.env.
func allState(t *testing.T, n *node) string {
	t.Helper()
	var all strings.Builder
	// A bridge has no state before its first port is up.
	state := strings.ReplaceAll(kernelState(t, n.Host), "UNKNOWN", "UP     ")
	all.WriteString(segmenterMAC.ReplaceAllString(state, "$1"))
	for _, command := range []string{"ip neigh show nud permanent", "bridge fdb show"} {
		words := strings.Fields(command)
		out, err := output(t, n.Host, words[0], words[1:]...)
		if err != nil {
			t.Fatalf("%s: %s", command, out)
		}
		lines := strings.Split(out, "\n")
		slices.Sort(lines)
		for _, line := range lines {
			// Learned entries of bridges come and go.
			if words[0] == "ip" || strings.Contains(line, " dst ") {
				all.WriteString(line + "\n")
			}
		}
	}
	files, err := os.ReadDir(filepath.Dir(n.envFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		// A host that returns to WireGuard keeps its key.
		if f.Name() != "wgkey" {
			fmt.Fprintln(&all, f.Name())
		}
	}
	return all.String()
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
			b.awaitPeer(a.subnet(), a.Addr().Addr())
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
