package etcdv3

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

const (
	// pastMoments is at how many revisions Past looks at most. An etcd refuses a
	// transaction of more than 128 operations (--max-txn-ops).
	pastMoments = 96
	// pastVisits bounds the keys that etcd counts, some 60 ns of its processor for
	// each. Where there are many, fewer moments are looked at.
	pastVisits = 1 << 17
	// pastKeys bounds the answer: a key without its value takes about 70 bytes.
	pastKeys = 1 << 15
	// pastWindow is how many revisions it looks back.
	pastWindow = 1 << 18
)

// Past implements subnet.Registry. It asks how many keys there were at one
// revision after the other, which etcd's index of keys answers. Where there were
// more than those of leases that have not been written since, some are gone, and
// it asks for the keys of that moment. A watch from an old revision would name
// every deletion, and have the server read all that anybody has written since.
func (r *Registry) Past(ctx context.Context, rev subnet.Rev, leases []subnet.Lease) ([]netip.Prefix, error) {
	back := min(int64(rev)-1, pastWindow)
	if back < 1 {
		return nil, nil
	}
	ages := moments(back, min(pastMoments, max(1, pastVisits/int64(len(leases)+1))))
	var counted []moment
	// A moment that was compacted fails all that are asked for with it.
	for n, last := len(ages), 0; len(ages) > 0 && n != last; n, last = (n+1)/2, n {
		part := ages[:min(n, len(ages))]
		more, err := r.count(ctx, rev, part)
		switch {
		case errors.Is(err, subnet.ErrCompacted):
			continue
		case err != nil:
			return nil, err
		}
		counted, ages = append(counted, more...), ages[len(part):]
	}
	if worth := choose(counted, rev, leases); len(worth) > 0 {
		return r.keys(ctx, rev, worth)
	}
	return nil, nil
}

// moment is a revision, so many before the one that Past was asked about, how
// many keys there were, and how many of them are gone.
type moment struct{ age, keys, gone int64 }

// choose returns the moments that had keys which are gone, as many as the bound
// on the answer allows: of each stretch of time the one that had most. A lease
// that was written anew since counts as gone; that costs a look and no more.
func choose(counted []moment, rev subnet.Rev, leases []subnet.Lease) []moment {
	written := make([]int64, 0, len(leases))
	for _, l := range leases {
		written = append(written, int64(l.Rev))
	}
	slices.Sort(written)
	var worth []moment
	most := int64(1)
	for _, m := range counted {
		still, _ := slices.BinarySearch(written, int64(rev)-m.age+1)
		if m.gone = m.keys - int64(still); m.gone > 0 {
			worth = append(worth, m)
			most = max(most, m.keys)
		}
	}
	n := min(len(worth), int(max(1, pastKeys/most)))
	chosen := make([]moment, 0, n)
	for i := range n {
		stretch := worth[i*len(worth)/n : (i+1)*len(worth)/n]
		chosen = append(chosen, slices.MaxFunc(stretch, func(a, b moment) int { return cmp.Compare(a.gone, b.gone) }))
	}
	return chosen
}

// moments are up to n ages between 1 and back, in revisions: all of them if
// there are no more than n; else each older than the one before it by the same
// factor, so that the longer a host has been away, the longer it must have had
// its lease to be seen.
func moments(back, n int64) (ages []int64) {
	n = min(n, back)
	for i := range n {
		age := i + 1
		if back > n {
			age = int64(math.Round(math.Pow(float64(back), float64(age)/float64(n))))
		}
		if len(ages) == 0 || age > ages[len(ages)-1] {
			ages = append(ages, age)
		}
	}
	return ages
}

// count returns how many keys there were so many revisions before rev.
func (r *Registry) count(ctx context.Context, rev subnet.Rev, ages []int64) ([]moment, error) {
	counted := make([]moment, 0, len(ages))
	for _, age := range ages {
		counted = append(counted, moment{age: age})
	}
	err := r.lookBack(ctx, rev, counted, func(i int, answer *pb.RangeResponse) {
		counted[i].keys = answer.Count
	}, clientv3.WithCountOnly())
	return counted, err
}

// keys returns the subnets that had a key at these moments before rev.
func (r *Registry) keys(ctx context.Context, rev subnet.Rev, at []moment) (found []netip.Prefix, err error) {
	err = r.lookBack(ctx, rev, at, func(_ int, answer *pb.RangeResponse) {
		for _, kv := range answer.Kvs {
			// A bad key is no host's subnet.
			if l, err := subnet.ParseKey(strings.TrimPrefix(string(kv.Key), r.cfg.LeaseDir())); err == nil {
				found = append(found, l.Subnet)
			}
		}
	}, clientv3.WithKeysOnly(), clientv3.WithLimit(pastKeys/int64(len(at))))
	return found, err
}

// lookBack reads the directory of leases as it was at each of these moments
// before rev, in one transaction, and tells each of the answers.
func (r *Registry) lookBack(ctx context.Context, rev subnet.Rev, at []moment, tell func(i int, answer *pb.RangeResponse), what ...clientv3.OpOption) error {
	dir := r.cfg.LeaseDir()
	var reads []clientv3.Op
	for _, m := range at {
		then := clientv3.WithRev(int64(rev) - m.age)
		reads = append(reads, clientv3.OpGet(dir, append([]clientv3.OpOption{clientv3.WithPrefix(), then}, what...)...))
	}
	return r.call(ctx, "look back at "+dir, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).Then(reads...).Commit()
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			return subnet.ErrCompacted
		case err != nil:
			return err
		}
		for i, answer := range resp.Responses {
			tell(i, answer.GetResponseRange())
		}
		return nil
	})
}
