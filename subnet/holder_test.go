package subnet_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// assigned is a Holder of a store that assigns subnets: without TTLs, keys to
// create or challenges.
type assigned struct {
	subnet  netip.Prefix
	stored  []subnet.Attrs // what was written, in order
	former  []netip.Addr   // of the last Renew
	failure error
}

func (a *assigned) Acquire(_ context.Context, attrs subnet.Attrs, h subnet.Hints, report func(error)) (subnet.Lease, error) {
	report(nil)
	a.stored = append(a.stored, attrs)
	return subnet.Lease{Subnet: a.subnet, Attrs: attrs}, nil
}

func (a *assigned) Renew(_ context.Context, l subnet.Lease, attrs subnet.Attrs, former []netip.Addr) (subnet.Lease, error) {
	if a.failure != nil {
		return subnet.Lease{}, a.failure
	}
	a.former = former
	a.stored = append(a.stored, attrs)
	l.Attrs = attrs
	return l, nil
}

func (a *assigned) Check(context.Context, subnet.Lease) error { return nil }

// The Manager serves a store without TTLs: it renews the lease only to publish
// attributes, and repeats a failed attempt.
func TestManagerWithoutTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, holder := subnettest.NewFake(), &assigned{subnet: prefix("10.5.7.0/24")}
		m := subnet.NewManager(fake, holder, parseConfig(t, network16), options)
		l, err := m.Acquire(t.Context(), us, subnet.Hints{})
		if err != nil || m.Status().Lease.Subnet != holder.subnet || m.Status().Ends != 0 {
			t.Fatalf("Acquire: %v, status %+v", err, m.Status())
		}
		// The store's lease has no TTL, and no reservation is meant by that.
		fake.Put("10.5.7.0-24", value("192.0.2.1"), 0)
		h := subnettest.RunHost(t, fake, m, l)
		time.Sleep(1000 * time.Hour)
		published := us
		published.BackendData = json.RawMessage(`{"PublicKey":"new"}`)
		holder.failure = errors.New("store is down")
		m.Publish(published)
		time.Sleep(10 * time.Second)
		if m.Status().StoreError == nil {
			t.Error("a failed Renew is not in the status")
		}
		holder.failure = nil
		if err := m.AwaitPublished(t.Context()); err != nil || m.Status().StoreError != nil {
			t.Errorf("AwaitPublished: %v, store error %v", err, m.Status().StoreError)
		}
		if !slices.EqualFunc(holder.stored, []subnet.Attrs{us, published}, subnet.Attrs.Equal) {
			t.Errorf("stored %+v, want the attributes of Acquire and of Publish", holder.stored)
		}
		holder.failure = subnet.ErrLost
		m.Publish(us)
		if err := <-h.Errs; !errors.Is(err, subnet.ErrLost) {
			t.Errorf("Renew ended with %v, want ErrLost", err)
		}
	})
}

// After Adopt, Renew passes the former addresses to the Holder.
func TestAdoptPassesFormerAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, holder := subnettest.NewFake(), new(assigned)
		fake.SetConfig([]byte(network16))
		m := subnet.NewManager(fake, holder, parseConfig(t, network16), options)
		own, former := subnet.Lease{Subnet: prefix("10.5.7.0/24"), Attrs: us}, []netip.Addr{netip.MustParseAddr("192.0.2.9")}
		m.Adopt(own, former...)
		h := subnettest.RunHost(t, fake, m, own)
		if !slices.Equal(holder.former, former) || len(holder.stored) == 0 {
			t.Errorf("Renew got former addresses %v, want %v", holder.former, former)
		}
		h.End(t)
	})
}

func TestSameHost(t *testing.T) {
	former := []netip.Addr{netip.MustParseAddr("192.0.2.9")}
	for name, test := range map[string]struct {
		stored subnet.Attrs
		want   bool
	}{
		"same address and node":      {node("192.0.2.1", "a"), true},
		"same address, another node": {node("192.0.2.1", "b"), false},
		"same address, no node id":   {attrs("192.0.2.1"), true},
		"former address":             {node("192.0.2.9", "a"), true},
		"former address, no node id": {attrs("192.0.2.9"), false},
		"another address, same node": {node("192.0.2.8", "a"), false},
	} {
		if got := node("192.0.2.1", "a").SameHost(test.stored, former); got != test.want {
			t.Errorf("%s: SameHost = %v, want %v", name, got, test.want)
		}
	}
}
