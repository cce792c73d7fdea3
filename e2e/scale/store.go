package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/etcdv3"
)

// config hands out the lower half of Network; the upper half is for leases that
// fill creates.
const config = `{"Network": "10.0.0.0/8", "SubnetLen": 24, "SubnetMax": "10.127.255.0", "Backend": {"Type": %q}}`

// writers is the number of concurrent writers of fill.
const writers = 32

// startEtcd runs a cluster of one member.
func (s *scale) startEtcd(ctx context.Context) error {
	client, peer, err := freeAddrs()
	if err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(s.dir, "etcd.log"))
	if err != nil {
		return fmt.Errorf("make log of etcd: %w", err)
	}
	defer logFile.Close() // etcd has a duplicate
	s.endpoint = "http://" + client
	s.etcd = exec.CommandContext(ctx, "etcd", "--name=scale", "--data-dir="+filepath.Join(s.dir, "etcd"),
		"--listen-client-urls="+s.endpoint, "--advertise-client-urls="+s.endpoint,
		"--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer,
		"--initial-cluster=scale=http://"+peer, "--logger=zap", "--log-level=error")
	s.etcd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=arm64") // required on arm64, ignored elsewhere
	s.etcd.Stderr = logFile
	if err := s.etcd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	s.Cleanup(func() {
		_ = s.etcd.Process.Kill() // it may have ended
		_ = s.etcd.Wait()         // killed: there is always an error
	})
	store, err := s.open("/probe")
	if err != nil {
		return err
	}
	defer store.Close()
	for began := time.Now(); ; {
		_, err := store.Config(ctx)
		if errors.Is(err, subnet.ErrNoConfig) {
			return nil
		}
		if time.Since(began) > startLimit {
			text, _ := os.ReadFile(logFile.Name()) // as far as it was written
			return fmt.Errorf("wait for etcd: %w\n%s", err, text)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// freeAddrs returns two unused addresses.
func freeAddrs() (a, b string, err error) {
	var free [2]string
	for i := range free {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // after the loop, so that both addresses differ
		free[i] = l.Addr().String()
	}
	return free[0], free[1], nil
}

// network publishes a configuration below prefix.
func (s *scale) network(ctx context.Context, prefix, backendType string) (*subnet.Config, error) {
	store, err := s.open(prefix)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	text := fmt.Appendf(nil, config, backendType)
	if _, err := store.PublishConfig(ctx, text); err != nil {
		return nil, err
	}
	return subnet.ParseConfig(text)
}

func (s *scale) open(prefix string) (*etcdv3.Store, error) {
	return etcdv3.New(etcd.ClientConfig{Endpoints: []string{s.endpoint}, Prefix: prefix})
}

// fill creates the leases of n hosts.
func (s *scale) fill(ctx context.Context, prefix string, n int, attrs func(i int) subnet.Attrs) error {
	store, err := s.open(prefix)
	if err != nil {
		return err
	}
	defer store.Close()
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for i := range n {
		g.Go(func() error {
			l := subnet.Lease{Subnet: netip.PrefixFrom(fillAddr(i), 24), Attrs: attrs(i)}
			_, err := store.Create(ctx, l, time.Hour)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("create leases: %w", err)
	}
	s.printf("fill: %d leases created in %v by %d writers", n, time.Since(began).Round(time.Millisecond), writers)
	return nil
}

// hostAddr returns the public IP of host i, from the range for benchmarks (RFC 2544).
func hostAddr(i int) netip.Addr {
	return addr(0xc6120000 + uint32(i) + 1) // 198.18.0.1
}

// fillAddr returns the i-th subnet from 10.128.0.0 on, which hosts do not get.
func fillAddr(i int) netip.Addr { return addr(0x0a800000 + uint32(i)<<8) }
