package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/status"
)

const (
	// lookEvery is how often the state is compared with what it was.
	lookEvery = time.Second
	// named is how many peers one message names; the others it counts.
	named = 5
)

// observe puts into words what changes in the report, for the log and the
// status page, until ctx ends.
func (d *daemon) observe(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	before := d.report()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			now := d.report()
			for _, text := range changes(before, now) {
				log.Info(text)
				d.events.Add(text)
			}
			before = now
		}
	}
}

// changes says what is different, one line for each kind: a thousand peers that
// fall silent at once are one line.
func changes(before, now status.Snapshot) []string {
	var said []string
	say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	if now.Node != before.Node && now.Node.Iface != "" {
		say("use interface iface=%s public_ip=%v mtu=%d", now.Node.Iface, now.Node.PublicIP, now.Node.MTU)
	}
	if now.Lease != nil && (before.Lease == nil || before.Lease.Subnet != now.Lease.Subnet) {
		say("lease subnet subnet=%v", now.Lease.Subnet)
	} else if now.Lease != nil && now.Lease.ExpiresAt.After(before.Lease.ExpiresAt) {
		say("renewed lease subnet=%v expires=%s", now.Lease.Subnet, now.Lease.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if now.Store.Since.IsZero() == before.Store.Since.IsZero() && now.Store.Reachable != before.Store.Reachable {
		if now.Store.Reachable {
			say("the store answers again")
		} else {
			say("the store does not answer; packets go on")
		}
	}
	if is, was := len(now.NotReady) == 0, len(before.NotReady) == 0; is != was {
		if is {
			say("the network is complete")
		} else {
			say("not ready reason=%q", now.NotReady[0])
		}
	}
	is, was := bySubnet(now), bySubnet(before)
	for _, kind := range []struct {
		text string
		true func(now, before *status.Peer) bool
	}{
		{"peers joined", func(now, before *status.Peer) bool { return now != nil && before == nil }},
		{"peers left", func(now, before *status.Peer) bool { return now == nil && before != nil }},
		{"peers do not answer through the overlay", func(now, before *status.Peer) bool { return silent(now) && !silent(before) }},
		{"peers answer again", func(now, before *status.Peer) bool { return now != nil && !silent(now) && silent(before) }},
	} {
		var subnets []netip.Prefix
		for s := range is {
			if kind.true(is[s], was[s]) {
				subnets = append(subnets, s)
			}
		}
		for s := range was {
			if is[s] == nil && kind.true(nil, was[s]) {
				subnets = append(subnets, s)
			}
		}
		if len(subnets) > 0 {
			slices.SortFunc(subnets, netip.Prefix.Compare)
			say("%s count=%d subnets=%v", kind.text, len(subnets), subnets[:min(named, len(subnets))])
		}
	}
	return said
}

func silent(p *status.Peer) bool { return p != nil && p.Probe != nil && p.Probe.Silent }

func bySubnet(s status.Snapshot) map[netip.Prefix]*status.Peer {
	peers := make(map[netip.Prefix]*status.Peer)
	if s.Backend != nil {
		for i := range s.Backend.Peers {
			peers[s.Backend.Peers[i].Subnet] = &s.Backend.Peers[i]
		}
	}
	return peers
}
