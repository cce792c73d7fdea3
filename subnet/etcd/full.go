package etcd

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

const (
	// expirationTimeout bounds the time for reading the ends of leases before
	// ErrFull is returned, and maxExpirations the number of leases: the host may
	// be restarted every few seconds.
	expirationTimeout = time.Second
	maxExpirations    = 1024
)

// fullError returns ErrFull with the use of a family's network and the remedies.
func (a *acquisition) fullError(ctx context.Context, f inet.Family, leases []subnet.Lease) error {
	r := a.config.RangeOf(f)
	var holding []subnet.Lease
	reserved := 0
	for _, l := range leases {
		if len(takenBlocks(r, []netip.Prefix{l.SubnetOf(f)})) == 0 {
			continue
		}
		if l.Reserved {
			reserved++
		} else {
			holding = append(holding, l)
		}
	}
	by := []string{counted(len(holding), "lease"), counted(reserved, "reservation")}
	if n := len(takenBlocks(r, a.occupied)); n > 0 {
		by = append(by, counted(n, "key")+" that cannot be read or came in between")
	}
	for network, of := range a.hints.Unusable {
		if len(takenBlocks(r, []netip.Prefix{network})) > 0 {
			by = append(by, fmt.Sprintf("%v of %s, which this host has already", network, of))
		}
	}
	next := ""
	if l, known := a.nextToEnd(ctx, holding); known {
		next = fmt.Sprintf("; the next lease to end, unless its host renews it, is that of %v (hostname %q), at %s",
			l, l.Attrs.Hostname, l.Expiration.UTC().Format(time.RFC3339))
	}
	keys := "SubnetMin, SubnetMax, SubnetLen, Network"
	if f == inet.IPv6 {
		keys = "IPv6SubnetMin, IPv6SubnetMax, IPv6SubnetLen, IPv6Network"
	}
	return fmt.Errorf("choose a subnet for %v: %w: the network hands out %s of /%d, %v to %v, all taken: %s%s; "+
		`end those of hosts that do not come back ("flannel leases", "flannel release -lease SUBNET"), or hand out more (%s)`,
		a.attrs.HostAddr(), subnet.ErrFull, counted(int(blockCount(r)), "subnet"), r.SubnetLen, r.SubnetMin, r.SubnetMax, strings.Join(by, ", "), next, keys)
}

// nextToEnd returns the lease that ends first; known is false if the store gives
// no answer in time.
func (a *acquisition) nextToEnd(ctx context.Context, leases []subnet.Lease) (first subnet.Lease, known bool) {
	if s, ok := a.keyspace.(subnet.Expirer); ok {
		if len(leases) > maxExpirations {
			return subnet.Lease{}, false
		}
		limited, cancel := context.WithTimeout(ctx, expirationTimeout)
		defer cancel()
		leases = slices.Clone(leases)
		if err := s.FillExpirations(limited, leases); err != nil {
			log.V(1).Infof("get the ends of leases: %v", err)
			return subnet.Lease{}, false
		}
	}
	for _, l := range leases {
		if !l.Expiration.IsZero() && (!known || l.Expiration.Before(first.Expiration)) {
			first, known = l, true
		}
	}
	return first, known
}

// counted returns "1 thing" or "n things".
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
