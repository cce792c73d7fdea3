package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// With -ip-blackhole-route the kernel drops packets for addresses of the host's subnet
// that no route has, and containers behind a bridge are reached. A start without the flag
// removes the route, and so does cleanup.
func TestBlackholeRoute(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(`{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "Backend": {"Type": "host-gw"}}`)
	n := c.nodeOn(c.lab.DualHost("a"))
	blackholes := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d blackholes", want), func() error {
			var all strings.Builder
			for _, family := range []string{"-4", "-6"} {
				out, err := output(t, n.Host, "ip", family, "route", "show", "type", "blackhole")
				if err != nil {
					return errors.New(out)
				}
				all.WriteString(out)
			}
			if have := strings.Count(all.String(), "blackhole "); have != want {
				return errors.New(all.String())
			}
			return nil
		})
	}
	d := n.join("-ip-blackhole-route")
	blackholes(2)
	nobody := n.subnet().Addr().Next().Next().Next()
	if out, err := output(t, n.Host, "ip", "route", "get", nobody.String()); err == nil {
		t.Errorf("a packet for %v has the route %s", nobody, out)
	}
	n.addContainer()
	eventually(t, "the host reaches its container", func() error { return ping(t, n.Host, n.containerAddr()) })
	d.kill()
	blackholes(2)
	d = n.join()
	blackholes(0)
	d.stop()

	d = n.join("-ip-blackhole-route")
	blackholes(2)
	d.kill()
	n.commandSays(0, "blackhole "+n.subnet().String(), "cleanup", "-subnet-file="+n.envFile)
	blackholes(0)
}
