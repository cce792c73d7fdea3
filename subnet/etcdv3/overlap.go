package etcdv3

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

// Overlapping implements subnet.Registry: it reads the keys that share p's whole
// octets, p's own among them, of which there are few, and those of the subnets
// that p lies in.
func (r *Registry) Overlapping(ctx context.Context, p netip.Prefix) (leases []subnet.Lease, err error) {
	dir := r.cfg.LeaseDir()
	inside := dir + wholeOctets(p)
	reads := []clientv3.Op{clientv3.OpGet(inside, clientv3.WithPrefix())}
	for bits := 1; bits < p.Bits(); bits++ {
		key := dir + subnet.Lease{Subnet: netip.PrefixFrom(p.Addr(), bits).Masked()}.Key()
		if !strings.HasPrefix(key, inside) {
			// A dual-stack host's key goes on with an ampersand.
			reads = append(reads, clientv3.OpGet(key, clientv3.WithRange(key+string('&'+1))))
		}
	}
	err = r.call(ctx, "list what overlaps "+p.String()+" in "+dir, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).Then(reads...).Commit()
		if err != nil {
			return err
		}
		for _, answer := range resp.Responses {
			leases = append(leases, r.decodeAll(answer.GetResponseRange().Kvs)...)
		}
		return nil
	})
	return slices.DeleteFunc(leases, func(l subnet.Lease) bool { return !l.Subnet.Overlaps(p) }), err
}

// wholeOctets is what begins the names of all keys of subnets that lie in p:
// "10.5." for 10.5.16.0/20.
func wholeOctets(p netip.Prefix) string {
	octets := strings.SplitAfter(p.Addr().String(), ".")
	return strings.Join(octets[:min(p.Bits()/8, len(octets)-1)], "")
}
