// Package etcd holds what the stores of both etcd APIs share: how a host obtains
// a subnet and keeps it, the configuration and flags of a client, and the timing
// of heartbeats. It does not import an etcd client; packages etcdv3 and etcdv2
// implement subnet.Keyspace with one.
//
//	Holder ──Create, Update, Delete──► subnet.Keyspace ◄── etcdv3, etcdv2
//	   └─ acquire ─► reuse | create, verify
//	   └─ renew   ─► update | repair
package etcd

import (
	"time"

	"github.com/coreos/flannel/subnet"
)

// Holder implements subnet.Holder over a Keyspace: it chooses a free subnet at
// random, writes its key with a TTL, and extends that by compare-and-swap.
type Holder struct {
	keyspace subnet.Keyspace
	config   *subnet.Config
	ttl      time.Duration
}

// NewHolder returns a Holder that takes subnets of c for ttl.
func NewHolder(k subnet.Keyspace, c *subnet.Config, ttl time.Duration) *Holder {
	return &Holder{keyspace: k, config: c, ttl: ttl}
}
