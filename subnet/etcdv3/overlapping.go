package etcdv3

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

// Overlapping implements subnet.Keyspace. For a lease with an IPv4 part only, it reads
// the few keys that begin with the part's whole octets, its own included, and the
// keys of the subnets that contain it. An IPv6 part is at the end of its key, so that
// those that overlap one are found in the list of all.
func (s *Store) Overlapping(ctx context.Context, l subnet.Lease) (leases []subnet.Lease, err error) {
	if l.IPv6Subnet.IsValid() {
		leases, _, err = s.List(ctx)
	} else {
		leases, err = s.nearby(ctx, l.Subnet)
	}
	return slices.DeleteFunc(leases, func(other subnet.Lease) bool { return !other.Overlaps(l) }), err
}

// nearby returns the leases that overlap p, and others.
func (s *Store) nearby(ctx context.Context, p netip.Prefix) (leases []subnet.Lease, err error) {
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
	return leases, err
}

// wholeOctets returns the common prefix of the keys of all subnets in p: "10.5."
// for 10.5.16.0/20.
func wholeOctets(p netip.Prefix) string {
	octets := strings.SplitAfter(p.Addr().String(), ".")
	return strings.Join(octets[:min(p.Bits()/8, len(octets)-1)], "")
}
