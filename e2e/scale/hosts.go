package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/etcdv3"
)

const (
	// newLeases is the number of leases for the measurement of delays,
	// newLeaseInterval the pause between two of them.
	newLeases        = 50
	newLeaseInterval = 200 * time.Millisecond
	hostsPrefix      = "/hosts"
)

// leaseTTL is the TTL of the simulated hosts' leases.
const leaseTTL = 10 * time.Minute

// newManager returns a Manager that renews its lease during the idle
// measurement: renewals must wake no other host.
func (s *scale) newManager(store *etcdv3.Store, c *subnet.Config) *subnet.Manager {
	return subnet.NewManager(store, etcd.NewHolder(store, c, leaseTTL), c, subnet.Timing{RenewMargin: leaseTTL - s.idle/2})
}

// deliveries counts the events of all simulated data planes.
type deliveries struct {
	events atomic.Int64
	synced atomic.Int64

	mu      sync.Mutex // guards what follows
	created map[netip.Prefix]time.Time
	delays  []time.Duration
}

// apply replaces a data plane, which would set routes in this call.
func (d *deliveries) apply(events []subnet.Event) {
	now := time.Now()
	d.events.Add(int64(len(events)))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events {
		if began, ok := d.created[e.Subnet()]; ok && e.Type == subnet.Added {
			d.delays = append(d.delays, now.Sub(began))
		}
	}
}

// measureHosts lets all hosts acquire leases at once, then measures them idle, and
// then the delivery of new leases.
func (s *scale) measureHosts(ctx context.Context) error {
	c, err := s.network(ctx, hostsPrefix, "udp")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &deliveries{created: make(map[netip.Prefix]time.Time)}
	var mu sync.Mutex // guards took
	var took []time.Duration
	var acquired, run errgroup.Group
	began, cost := time.Now(), s.costs()
	for i := range s.hosts {
		store, err := s.open(hostsPrefix)
		if err != nil {
			return err
		}
		m := s.newManager(store, c)
		acquired.Go(func() error {
			start := time.Now()
			lease, err := m.Acquire(ctx, subnet.Attrs{PublicIP: hostAddr(i)}, subnet.Hints{})
			if err != nil {
				return fmt.Errorf("host %d: %w", i, err)
			}
			mu.Lock()
			took = append(took, time.Since(start))
			mu.Unlock()
			run.Go(func() error {
				defer store.Close()
				g, ctx := errgroup.WithContext(ctx)
				g.Go(func() error { return m.Renew(ctx, lease) })
				g.Go(func() error {
					first := true
					return m.Watch(ctx, lease, func(events []subnet.Event) {
						h.apply(events)
						if first {
							first = false
							h.synced.Add(1)
						}
					})
				})
				return g.Wait()
			})
			return nil
		})
	}
	if err := acquired.Wait(); err != nil {
		cancel()
		return fmt.Errorf("acquire: %w", err)
	}
	s.printf("acquire: %d hosts at once: %s; all of them in %v, processor time %s", s.hosts, quantiles(took),
		time.Since(began).Round(time.Millisecond), s.costs().since(cost))
	if err := s.settle(ctx, h); err != nil {
		return err
	}
	before, processor := h.events.Load(), s.processorOf(s.etcd.Process.Pid)
	if err := pause(ctx, s.idle); err != nil {
		return err
	}
	s.printf("idle: in %v, while each host renews, %d events for all hosts together; etcd uses %.1f %% of a processor",
		s.idle, h.events.Load()-before, 100*(s.processorOf(s.etcd.Process.Pid)-processor).Seconds()/s.idle.Seconds())
	if err := s.announce(ctx, h); err != nil {
		return err
	}
	cancel()
	return run.Wait()
}

// settle waits until every host has its first full set and the others' leases.
func (s *scale) settle(ctx context.Context, h *deliveries) error {
	for last := int64(-1); h.synced.Load() < int64(s.hosts) || h.events.Load() != last; {
		last = h.events.Load()
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	s.printf("join: %.1f events for each host to know all %d others", float64(h.events.Load())/float64(s.hosts), s.hosts-1)
	return nil
}

// announce creates leases and waits until all of them are delivered to all hosts.
func (s *scale) announce(ctx context.Context, h *deliveries) error {
	store, err := s.open(hostsPrefix)
	if err != nil {
		return err
	}
	defer store.Close()
	before := h.events.Load()
	for i := range newLeases {
		// In Network, outside the range that hosts get subnets from.
		fresh := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(4 * i)}), 30)
		h.mu.Lock()
		h.created[fresh] = time.Now()
		h.mu.Unlock()
		_, err := store.Create(ctx, subnet.Lease{Subnet: fresh, Attrs: subnet.Attrs{PublicIP: hostAddr(1 << 20)}}, time.Hour)
		if err != nil {
			return err
		}
		if err := pause(ctx, newLeaseInterval); err != nil {
			return err
		}
	}
	for want := before + int64(newLeases*s.hosts); h.events.Load() < want; {
		if err := pause(ctx, newLeaseInterval); err != nil {
			return fmt.Errorf("wait until all hosts know the new leases: %w", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.printf("news: from a lease's creation to its route on %d hosts: %s (%d samples)", s.hosts, quantiles(h.delays), len(h.delays))
	return nil
}

func addr(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
