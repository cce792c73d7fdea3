package etcd_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// A host takes no subnet that overlaps a network of its own, and gives such a lease
// up; the subnet of its last run is the exception.
func TestAcquireBesideUnusableNetworks(t *testing.T) {
	first := map[netip.Prefix]string{prefix("10.5.1.0/25"): "eth1"}
	for name, test := range map[string]struct {
		unusable map[netip.Prefix]string
		key      string // of a lease that this host has
		prev     netip.Prefix
		want     string // "": none
	}{
		"a free one":                  {unusable: first, want: "10.5.2.0/24"},
		"an own lease":                {unusable: first, key: "10.5.1.0-24", want: "10.5.2.0/24"},
		"that of the last run":        {unusable: first, prev: prefix("10.5.1.0/24"), want: "10.5.1.0/24"},
		"own lease, that of last run": {unusable: first, key: "10.5.1.0-24", prev: prefix("10.5.1.0/24"), want: "10.5.1.0/24"},
		"all of them":                 {unusable: map[netip.Prefix]string{prefix("10.5.0.0/20"): "br-compose"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				if test.key != "" {
					fake.Put(test.key, value("192.0.2.1"), time.Hour)
				}
				l, err := newManager(t, fake, twoLeft).Acquire(t.Context(), us, subnet.Hints{Previous: test.prev, Unusable: test.unusable})
				if test.want == "" {
					if !errors.Is(err, subnet.ErrFull) || !strings.Contains(err.Error(), "10.5.0.0/20 of br-compose") || len(fake.Leases(t)) > 0 {
						t.Errorf("got %v, %v", l, err)
					}
					return
				}
				if err != nil || l.Subnet.String() != test.want || len(fake.Leases(t)) != 1 {
					t.Errorf("got %v, %v, and %d leases; want %s", l.Subnet, err, len(fake.Leases(t)), test.want)
				}
			})
		})
	}
}
