package rig

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

const (
	// leaseTTL is longer than any run, in seconds.
	leaseTTL = 7 * 24 * 3600
	// putBatch is the number of keys in one transaction, etcd's default limit
	// (--max-txn-ops).
	putBatch = 128
	// storeTimeout bounds each request.
	storeTimeout = 10 * time.Second
)

// store is the etcd of all daemons: a flannel with an embedded etcd, on a host of
// its own, so that its work is not part of any measured daemon's.
type store struct {
	url    string
	client *clientv3.Client
	id     clientv3.LeaseID
}

type lease struct{ key, value string }

// openStore starts the store on the first call.
func (r *Rig) openStore(ctx context.Context) (*store, error) {
	r.scope.Helper()
	if r.store != nil {
		return r.store, nil
	}
	h := r.lab.Host("store")
	addr := netip.AddrPortFrom(h.Addr().Addr(), 2379).String()
	dir := r.folder(h)
	n := &node{host: h, program: r.programs.Flannel, logFile: filepath.Join(dir, "log"), args: []string{
		"-etcd-embed", "-etcd-embed-listen=" + addr, "-etcd-prefix=/bench/store",
		`-network={"Network": "10.0.0.0/8", "Backend": {"Type": "alloc"}}`, "-status-addr=",
		"-state-dir=" + filepath.Join(dir, "state"), "-subnet-file=" + filepath.Join(dir, "subnet.env"),
	}}
	r.scope.Cleanup(func() {
		if err := n.stop(); err != nil {
			r.scope.Logf("stop store: %v", err)
		}
	})
	if err := n.start(ctx); err != nil {
		// %s, as a *RefusedError would leave out only one subject.
		return nil, fmt.Errorf("start store: %s", err)
	}
	s := &store{url: "http://" + addr}
	var err error
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{s.url},
		Logger:    zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return h.Dial(ctx, "tcp", strings.TrimPrefix(addr, "http://"))
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	r.scope.Cleanup(func() { s.client.Close() })
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	granted, err := s.client.Grant(ctx, leaseTTL)
	if err != nil {
		return nil, fmt.Errorf("get lease of store: %w", err)
	}
	s.id = granted.ID
	r.store = s
	return s, nil
}

// put writes leases under a prefix.
func (s *store) put(ctx context.Context, prefix string, leases []lease) error {
	for batch := range slices.Chunk(leases, putBatch) {
		ops := make([]clientv3.Op, 0, putBatch)
		for _, l := range batch {
			ops = append(ops, clientv3.OpPut(prefix+l.key, l.value, clientv3.WithLease(s.id)))
		}
		if err := s.commit(ctx, ops); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) commit(ctx context.Context, ops []clientv3.Op) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := s.client.Txn(ctx).Then(ops...).Commit(); err != nil {
		return fmt.Errorf("put leases into store: %w", err)
	}
	return nil
}
