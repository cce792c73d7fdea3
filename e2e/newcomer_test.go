package e2e

import (
	"fmt"
	"testing"
)

// A newcomer is not given what another host had whose lease has ended: that one
// finds it free when it is back. Of ten subnets one has had no host.
func TestNewcomerLeavesWhatOthersHad(t *testing.T) {
	for _, api := range []string{"3", "2"} {
		t.Run("api"+api, func(t *testing.T) {
			c := newCluster(t, api)
			c.configure(`{"Network": "10.5.0.0/16", "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.10.0"}`)
			a, b := c.node("a"), c.node("b")
			a.join("-subnet-lease-ttl=2s").stop()
			key, subnet := a.leaseKey(), a.subnet()
			free := "10.5.1.0/24"
			if subnet.String() == free {
				free = "10.5.2.0/24"
			}
			for i := range 10 {
				name := fmt.Sprintf("10.5.%d.0", i+1)
				if had := name + "/24"; had != free && had != subnet.String() {
					c.keys.put(t, "subnets/"+name+"-24", `{"PublicIP":"192.168.77.99"}`, 0)
					c.keys.del(t, "subnets/"+name+"-24")
				}
			}
			eventually(t, "the lease of the host that left has ended", func() error {
				if value, is := c.leases()[key]; is {
					return fmt.Errorf("it is %s", value)
				}
				return nil
			})
			b.join()
			if got := b.subnet().String(); got != free {
				t.Errorf("the newcomer has %s, which another host had; want %s", got, free)
			}
			a.join()
			if a.subnet() != subnet {
				t.Errorf("the host that is back has %v, had %v", a.subnet(), subnet)
			}
		})
	}
}

// A host that finds the network full ends, as one that could not start, and says
// until when, and what helps; once that is done, it starts.
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
