package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcdv3"
)

const newcomersPrefix = "/newcomers"

// measureNewcomers has hosts that had no subnet yet come into a cluster of many
// leases, which has seen as many go: first one, then all at once. Those that are
// gone they should leave alone.
func (s *scale) measureNewcomers(ctx context.Context) error {
	c, err := s.network(ctx, newcomersPrefix, "udp")
	if err != nil {
		return err
	}
	if err := s.fill(ctx, newcomersPrefix, s.leases, plain); err != nil {
		return err
	}
	if err := s.depart(ctx); err != nil {
		return err
	}
	if err := s.askForPast(ctx); err != nil {
		return err
	}
	for _, n := range slices.Compact([]int{1, s.newcomers}) {
		if err := s.comeIn(ctx, c, n); err != nil {
			return err
		}
	}
	return nil
}

// depart creates and deletes the leases of as many hosts.
func (s *scale) depart(ctx context.Context) error {
	reg, err := s.open(newcomersPrefix)
	if err != nil {
		return err
	}
	defer reg.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for i := range s.leases {
		g.Go(func() error {
			l := subnet.Lease{Subnet: netip.PrefixFrom(departedAddr(i), 24), Attrs: plain(s.leases + i)}
			l, err := reg.Create(ctx, l, time.Hour)
			if err != nil {
				return err
			}
			return reg.Delete(ctx, l)
		})
	}
	return g.Wait()
}

// askForPast looks at what the store's history costs alone.
func (s *scale) askForPast(ctx context.Context) error {
	reg, err := s.open(newcomersPrefix)
	if err != nil {
		return err
	}
	defer reg.Close()
	leases, rev, err := reg.List(ctx)
	if err != nil {
		return err
	}
	const times = 10
	began, cost, sent := time.Now(), s.costs(), s.sent(ctx)
	var found []netip.Prefix
	for range times {
		if found, err = reg.Past(ctx, rev, leases); err != nil {
			return err
		}
	}
	took := time.Since(began)
	distinct := make(map[netip.Prefix]bool)
	for _, p := range found {
		distinct[p] = true
	}
	s.printf("past: %d leases, as many gone, revision %d: %d entries, %d subnets, in %v, %.1f kB, processor time of %d such %s", s.leases, rev, len(found),
		len(distinct), (took / times).Round(time.Millisecond), (s.sent(ctx)-sent)/times/1000, times, s.costs().since(cost))
	return nil
}

// comeIn has n hosts acquire at once, and take back what they acquired.
func (s *scale) comeIn(ctx context.Context, c *subnet.Config, n int) error {
	var regs []*etcdv3.Registry
	for range n {
		reg, err := s.open(newcomersPrefix)
		if err != nil {
			return err
		}
		defer reg.Close()
		regs = append(regs, reg)
	}
	var mu sync.Mutex // guards took
	var took []time.Duration
	var g errgroup.Group
	cost, sent := s.costs(), s.sent(ctx)
	for i, reg := range regs {
		g.Go(func() error {
			began := time.Now()
			l, err := subnet.NewManager(reg, c, s.terms()).Acquire(ctx, subnet.Attrs{PublicIP: hostAddr(1<<16 + i)}, netip.Prefix{})
			if err != nil {
				return err
			}
			mu.Lock()
			took = append(took, time.Since(began))
			mu.Unlock()
			return reg.Delete(ctx, l)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.printf("newcomers: %d at once, beside %d leases: %s; %.1f MB for each, processor time %s", n, s.leases, quantiles(took),
		(s.sent(ctx)-sent)/float64(n)/1e6, s.costs().since(cost))
	return nil
}

// sent is how many bytes etcd has sent to its clients.
func (s *scale) sent(ctx context.Context) float64 {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint+"/metrics", nil)
	if err != nil {
		s.Fatalf("ask etcd for its counters: %v", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatalf("ask etcd for its counters: %v", err)
	}
	defer resp.Body.Close()
	const name = "etcd_network_client_grpc_sent_bytes_total "
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name); ok {
			var n float64
			if _, err := fmt.Sscan(text, &n); err == nil {
				return n
			}
		}
	}
	s.Fatalf("etcd does not count %s", name)
	return 0
}
