package e2e

import (
	"testing"
)

// A host that finds the network full exits with code 1. Its error has the end of the
// next lease and the cure. After the cure the host starts.
func TestFullNetwork(t *testing.T) {
	for _, api := range []string{"3", "2"} {
		t.Run("api"+api, func(t *testing.T) {
			c := newCluster(t, api)
			c.configure(`{"Network": "10.5.0.0/16", "SubnetMin": "10.5.7.0", "SubnetMax": "10.5.7.0"}`)
			a, b := c.node("a"), c.node("b")
			a.join().stop()
			d := b.launch()
			if code := d.wait().ExitCode(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			d.says("the network hands out 1 subnet of /24, 10.5.7.0 to 10.5.7.0, all taken: 1 lease, 0 reservations")
			d.says("the next lease to end, unless its host renews it, is that of 10.5.7.0/24 held by " + a.Addr().Addr().String())
			d.says(`"flannel release -lease SUBNET"`)
			c.keys.del(t, "subnets/"+a.leaseKey())
			b.join()
		})
	}
}
