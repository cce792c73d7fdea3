package etcdv3

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

// Overlapping implements subnet.Keyspace. It reads the few keys that begin with
// p's whole octets, p's own included, and the keys of the subnets that contain p.
func (s *Store) Overlapping(ctx context.Context, p netip.Prefix) (leases []subnet.Lease, err error) {
	dir := s.cfg.LeaseDir()
	inside := dir + wholeOctets(p)
	reads := []clientv3.Op{clientv3.OpGet(inside, clientv3.WithPrefix())}
	for bits := 1; bits < p.Bits(); bits++ {
		key := dir + subnet.Lease{Subnet: netip.PrefixFrom(p.Addr(), bits).Masked()}.Key()
		if !strings.HasPrefix(key, inside) {
			// A dual-stack host's key continues with an ampersand.
			reads = append(reads, clientv3.OpGet(key, clientv3.WithRange(key+string('&'+1))))
		}
	}
	err = s.call(ctx, "list leases that overlap "+p.String()+" in "+dir, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).Then(reads...).Commit()
		if err != nil {
			return err
		}
		for _, answer := range resp.Responses {
			leases = append(leases, s.decodeAll(answer.GetResponseRange().Kvs)...)
		}
		return nil
	})
	return slices.DeleteFunc(leases, func(l subnet.Lease) bool { return !l.Subnet.Overlaps(p) }), err
}

// wholeOctets returns the common prefix of the keys of all subnets in p: "10.5."
// for 10.5.16.0/20.
func wholeOctets(p netip.Prefix) string {
	octets := strings.SplitAfter(p.Addr().String(), ".")
	return strings.Join(octets[:min(p.Bits()/8, len(octets)-1)], "")
}
