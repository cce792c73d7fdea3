package rtnl

import (
	"context"
	"errors"
	"math"
	"net/netip"

	log "github.com/golang/glog"
)

// KeepBlackhole keeps a blackhole for subnet, and no other one in network, until ctx ends
// (nil). Its metric is the last of all, so each route to containers comes first. It stays
// in the kernel. KeepBlackhole works in the network namespace of the calling thread.
func KeepBlackhole(ctx context.Context, network, subnet netip.Prefix) error {
	r, err := New(Config{Network: network, Blackholes: true})
	if err != nil {
		return err
	}
	route := Route{Dst: subnet, Kind: Blackhole, Metric: math.MaxUint32}
	if err := r.Reset(map[netip.Prefix]State{subnet: {Routes: []Route{route}}}); err != nil {
		log.Warningf("set %v: %v", route, err) // Run tries again
	}
	return errors.Join(r.Run(ctx), r.Close())
}

// RemoveBlackholes deletes the blackholes in network that an earlier run left. It works in
// the network namespace of the calling thread.
func RemoveBlackholes(network netip.Prefix) error { return RemoveRoutes(network, Blackhole) }
