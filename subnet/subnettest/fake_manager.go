package subnettest

import (
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
)

// NewManager returns a Manager over the Fake, with etcd's Holder.
func (f *Fake) NewManager(c *subnet.Config, ttl time.Duration, o subnet.Timing) *subnet.Manager {
	return subnet.NewManager(f, etcd.NewHolder(f, c, ttl), c, o)
}
