package etcdv3

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

const (
	// pastMoments is at how many revisions Past looks at most. An etcd refuses a
	// transaction of more than 128 operations (--max-txn-ops).
	pastMoments = 96
	// pastKeys bounds the answer: a key without its value takes about 70 bytes.
	// Where there are many keys, fewer moments are looked at.
	pastKeys = 1 << 15
	// pastWindow is how many revisions it looks back.
	pastWindow = 1 << 18
)

// Past implements subnet.Registry. It reads which keys there were at one
// revision after the other, which etcd's index of keys answers; a watch from an
// old revision would name every deletion, and have the server read all that
// anybody has written since.
func (r *Registry) Past(ctx context.Context, rev subnet.Rev) ([]netip.Prefix, error) {
	back := min(int64(rev)-1, pastWindow)
	if back < 1 {
		return nil, nil
	}
	count, err := r.count(ctx)
	if err != nil {
		return nil, err
	}
	ages := moments(back, min(pastMoments, pastKeys/(count+1)))
	var found []netip.Prefix
	// A moment that was compacted fails all that are asked for with it.
	for n, last := len(ages), 0; len(ages) > 0 && n != last; n, last = (n+1)/2, n {
		part := ages[:min(n, len(ages))]
		more, err := r.lookBack(ctx, rev, part)
		switch {
		case errors.Is(err, subnet.ErrCompacted):
			continue
		case err != nil:
			return found, err
		}
		found, ages = append(found, more...), ages[len(part):]
	}
	return found, nil
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

// count is how many keys there are now.
func (r *Registry) count(ctx context.Context) (n int64, err error) {
	dir := r.cfg.LeaseDir()
	err = r.call(ctx, "count "+dir, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, dir, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil {
			n = resp.Count
		}
		return err
	})
	return n, err
}

// lookBack returns the subnets that had a key so many revisions before rev.
func (r *Registry) lookBack(ctx context.Context, rev subnet.Rev, ages []int64) (found []netip.Prefix, err error) {
	dir := r.cfg.LeaseDir()
	var reads []clientv3.Op
	for _, age := range ages {
		reads = append(reads, clientv3.OpGet(dir, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
			clientv3.WithRev(int64(rev)-age), clientv3.WithLimit(pastKeys/int64(len(ages)))))
	}
	err = r.call(ctx, "look back at "+dir, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).Then(reads...).Commit()
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			return subnet.ErrCompacted
		case err != nil:
			return err
		}
		for _, answer := range resp.Responses {
			for _, kv := range answer.GetResponseRange().Kvs {
				// A bad key is no host's subnet.
				if l, err := subnet.ParseKey(strings.TrimPrefix(string(kv.Key), dir)); err == nil {
					found = append(found, l.Subnet)
				}
			}
		}
		return nil
	})
	return found, err
}
