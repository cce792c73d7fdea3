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
	// leaseTTL is that of the made-up peers, in seconds: longer than any run.
	leaseTTL = 7 * 24 * 3600
	// putBatch is how many keys go into one transaction; etcd's default limit is
	// 128 (--max-txn-ops).
	putBatch = 128
	// storeLimit bounds a call of the store.
	storeLimit = 10 * time.Second
)

// store is the etcd that all daemons have in common. It is a flannel with an
// embedded one, on a host that carries no packets, so that its work is nobody's
// who is measured.
type store struct {
	url    string
	client *clientv3.Client
	id     clientv3.LeaseID
}

type lease struct{ key, value string }

// openStore starts the store when first asked.
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
		// Without a store there is nothing to leave out: the run is over.
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
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
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
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	if _, err := s.client.Txn(ctx).Then(ops...).Commit(); err != nil {
		return fmt.Errorf("put leases into store: %w", err)
	}
	return nil
}
