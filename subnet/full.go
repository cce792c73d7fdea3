package subnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	log "github.com/golang/glog"
)

// Ender is a Registry whose List does not tell when leases end, but which can
// find out: etcd's v3 API, at two round trips for each.
type Ender interface {
	// Ends fills in the Expiration of leases that List gave. A lease that has
	// ended in between keeps a zero one.
	Ends(ctx context.Context, leases []Lease) error
}

const (
	// endsLimit bounds the time in which a host that gives up asks for the ends
	// of leases, and mostEnds for how many: it may be restarted every few seconds.
	endsLimit = time.Second
	mostEnds  = 1024
)

// full is ErrFull with what an operator can do about it.
func (a *acquisition) full(ctx context.Context, leases []Lease) error {
	c := a.config
	var holding []Lease
	reserved := 0
	for _, l := range leases {
		if len(takenBlocks(c, []netip.Prefix{l.Subnet})) == 0 {
			continue
		}
		if l.Reserved {
			reserved++
		} else {
			holding = append(holding, l)
		}
	}
	n := blockNumber(c.SubnetMax, c.SubnetLen) - blockNumber(c.SubnetMin, c.SubnetLen) + 1
	by := []string{counted(len(holding), "lease"), counted(reserved, "reservation")}
	if len(a.refused) > 0 {
		by = append(by, counted(len(a.refused), "key")+" that cannot be read or came in between")
	}
	next := ""
	if l, known := a.nextToEnd(ctx, holding); known {
		next = fmt.Sprintf("; the next lease to end, unless its host renews it, is that of %v (hostname %q), at %s",
			l, l.Attrs.Hostname, l.Expiration.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("choose a subnet for %v: %w: the network hands out %s of /%d, %v to %v, all taken: %s%s; "+
		`end those of hosts that do not come back ("flannel leases", "flannel release -lease SUBNET"), or hand out more (SubnetMin, SubnetMax, SubnetLen, Network)`,
		a.attrs.PublicIP, ErrFull, counted(int(n), "subnet"), c.SubnetLen, c.SubnetMin, c.SubnetMax, strings.Join(by, ", "), next)
}

// nextToEnd is the lease that ends first, if that can be found out.
func (a *acquisition) nextToEnd(ctx context.Context, leases []Lease) (first Lease, known bool) {
	if r, ok := a.reg.(Ender); ok {
		if len(leases) > mostEnds {
			return Lease{}, false
		}
		limited, cancel := context.WithTimeout(ctx, endsLimit)
		defer cancel()
		leases = slices.Clone(leases)
		if err := r.Ends(limited, leases); err != nil {
			log.V(1).Infof("ask when leases end: %v", err)
			return Lease{}, false
		}
	}
	for _, l := range leases {
		if !l.Expiration.IsZero() && (!known || l.Expiration.Before(first.Expiration)) {
			first, known = l, true
		}
	}
	return first, known
}

// counted is n things, in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
