package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcdv3"
)

const newcomersPrefix = "/newcomers"

// measureNewcomers lets hosts without a lease join a cluster of many leases:
// first one, then all at once.
func (s *scale) measureNewcomers(ctx context.Context) error {
	c, err := s.network(ctx, newcomersPrefix, "udp")
	if err != nil {
		return err
	}
	if err := s.fill(ctx, newcomersPrefix, s.leases, plain); err != nil {
		return err
	}
	for _, n := range slices.Compact([]int{1, s.newcomers}) {
		if err := s.joinHosts(ctx, c, n); err != nil {
			return err
		}
	}
	return nil
}

// joinHosts lets n hosts acquire leases at once, and deletes these leases.
func (s *scale) joinHosts(ctx context.Context, c *subnet.Config, n int) error {
	var stores []*etcdv3.Store
	for range n {
		store, err := s.open(newcomersPrefix)
		if err != nil {
			return err
		}
		defer store.Close()
		stores = append(stores, store)
	}
	var mu sync.Mutex // guards took
	var took []time.Duration
	var g errgroup.Group
	cost, sent := s.costs(), s.sent(ctx)
	for i, store := range stores {
		g.Go(func() error {
			began := time.Now()
			l, err := s.newManager(store, c).Acquire(ctx, subnet.Attrs{PublicIP: hostAddr(1<<16 + i)}, subnet.Hints{})
			if err != nil {
				return err
			}
			mu.Lock()
			took = append(took, time.Since(began))
			mu.Unlock()
			return store.Delete(ctx, l)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.printf("newcomers: %d at once, beside %d leases: %s; %.1f MB for each, processor time %s", n, s.leases, quantiles(took),
		(s.sent(ctx)-sent)/float64(n)/1e6, s.costs().since(cost))
	return nil
}

// sent returns how many bytes etcd has sent to its clients.
func (s *scale) sent(ctx context.Context) float64 {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint+"/metrics", nil)
	if err != nil {
		s.Fatalf("get counters of etcd: %v", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatalf("get counters of etcd: %v", err)
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
